"""The whole command on runs of a small corpus: everything a filtering run writes, and the page."""

import json
from pathlib import Path

import numpy as np
import pytest
from page_checks import check_report

from lavis.tasks.combination.command import main

A = [0.9, 0.2, 0.6, 0.7, None, 0.1]
B = [0.8, 0.9, 0.3, 0.9, 0.5, 0.1]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_combined_scores_are_filtered_like_those_of_one_critic(corpus, run_folder, capsys):
    folder = corpus(6)
    a = run_folder("blip", A, mass=[0.5] * 6)
    b = run_folder("vlm", B, processor="base")
    output = folder / "both"
    assert main([str(a), f"qwen={b}", "--by", "minimum", "--output", str(output)]) == 0
    rows = lines(output / "result" / "test_epochbest.jsonl")
    assert [row["index"] for row in rows] == [0, 1, 2, 3, 5]
    np.testing.assert_allclose([row["score"] for row in rows], [0.8, 0.2, 0.3, 0.7, 0.1], atol=1e-7)
    first = lines(a / "result" / "test_epochbest.jsonl")[0]
    assert rows[0] == {
        **{key: first[key] for key in ("text", "instance", "index", "label")},
        "prediction": 1,
        "score": float(np.float32(0.8)),
        "score_blip": float(np.float32(0.9)),
        "score_qwen": float(np.float32(0.8)),
    }
    kept = lines(output / "kept" / "test_epochbest_filtered_threshold_0.5.jsonl")
    assert [(record["index"], record["image"]) for record in kept] == [
        ("id-0", "0.png"),
        ("id-3", "3.png"),
    ]
    (reject,) = lines(output / "rejects.jsonl")
    assert (reject["row"], reject["line"], reject["reason"]) == (
        4,
        5,
        "not scored: by every critic",
    )
    summary = json.loads((output / "summary.json").read_text())
    assert (summary["rows"], summary["scored"], summary["metrics"]["labelled"]) == (6, 5, 5)
    critics = json.loads((output / "critics.json").read_text())
    assert critics["by"] == "minimum" and [c["left_out"] for c in critics["critics"]] == [0, 1]
    assert [table["threshold"] for table in critics["kept_sets"]] == [0.5, 0.8]
    printed = capsys.readouterr().out
    assert "5 rows scored by all" in printed and "qwen: 1 of 6 rows left out" in printed


def test_the_page_shows_images_with_regions_and_every_score(corpus, run_folder, browser):
    folder = corpus(6)
    files = [str(run_folder(name, scores)) for name, scores in (("a" * 90, A), ("<b>", B))]
    files.append(str(run_folder("third", [0.4, 0.6, 0.9, None, 0.2, 0.3])))
    output = folder / "out"
    assert main([*files, "--output", str(output), "--keep-above", "0.55"]) == 0
    page = (output / "critics.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 4  # rows 0, 1, 2, 5: all three scored them
    assert page.count('class="lv-badge" data-region="0"') == 4
    assert "Only third keeps" not in page and "Only third drops" in page
    assert "&lt;b&gt;" in page and "<b> keeps" not in page
    check_report(browser, output / "critics.html")


def test_scores_without_their_run_give_scores_and_page_alone(corpus, run_folder, browser, capsys):
    folder = corpus(6, labels=False)
    runs = [run_folder(n, s, with_config=False) for n, s in (("a", A), ("b", B))]
    output = folder / "out"
    assert main([*map(str, runs), "--output", str(output)]) == 0
    names = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    assert names == {"result/test_epochbest.jsonl", "critics.json", "critics.html"}
    assert "no corpora, report and images" in capsys.readouterr().out
    check_report(browser, output / "critics.html")


def test_combined_scores_can_be_combined_again(corpus, run_folder):
    folder = corpus(40)
    draw = np.random.default_rng(0)
    runs = [str(run_folder(n, draw.random(40).tolist())) for n in ("a", "b", "c")]
    both, final = folder / "both", folder / "final"
    assert main([*runs[:2], "--by", "logistic", "--output", str(both)]) == 0
    assert set(json.loads((both / "critics.json").read_text())["fit"]["coefficients"]) == {"a", "b"}
    assert main([str(both), runs[2], "--output", str(final)]) == 0
    assert (final / "kept").is_dir()  # the data set is that of c


def test_records_that_changed_since_are_refused(corpus, run_folder, capsys):
    folder = corpus(6)
    runs = [str(run_folder("a", A)), str(run_folder("b", B))]
    records = (folder / "records.jsonl").read_text()
    (folder / "records.jsonl").write_text(records.replace("Cup number 3", "Mug number 3"))
    assert main([*runs, "--output", str(folder / "out")]) == 2
    said = capsys.readouterr().err
    assert "row 3 was scored as" in said and "mug number 3" in said and "changed since" in said
    assert not list((folder / "out").rglob("*.jsonl"))
    (folder / "records.jsonl").write_text(records.split("\n")[0] + "\n")
    assert main([*runs, "--output", str(folder / "out")]) == 2
    assert "row 5 was scored, and the data set" in capsys.readouterr().err


def test_results_of_a_run_are_not_written_over(corpus, run_folder, capsys):
    corpus(6)
    runs = [str(run_folder("a", A)), str(run_folder("b", B))]
    other = str(run_folder("c", B))
    before = contents(*runs, other)
    assert main([*runs, "--output", runs[1]]) == 2
    assert "is read by this command" in capsys.readouterr().err
    assert main([*runs, "--output", other]) == 2
    assert "c: holds the results of a run" in capsys.readouterr().err
    assert before == contents(*runs, other)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--keep-above", "1.5"], "between 0 and 1"),
        (["--by", "logistic"], "it needs 10 of each"),
        (["--options", "datasets.unified_vqa_binary.build_info.images.storage=gone"], "no such im"),
    ],
)
def test_faults_are_one_sentence(corpus, run_folder, capsys, flags, message):
    folder = corpus(6)
    runs = [str(run_folder("a", A)), str(run_folder("b", B))]
    assert main([*runs, "--output", str(folder / "out"), *flags]) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "out").exists()


def contents(*folders):
    paths = [path for folder in folders for path in sorted(Path(folder).rglob("*"))]
    return {path: path.read_bytes() for path in paths if path.is_file()}
