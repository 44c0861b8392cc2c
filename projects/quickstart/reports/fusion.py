"""Print what images do for a language model that is asked for colours of new objects.

    python -m projects.quickstart.reports.fusion output/quickstart

Reads what evaluate.py wrote to `colours` (images) and `colours_blank` (the control that was
trained and asked without); writes `fusion.json` beside them and adds a section with table, images
and answers to `report.html`, or makes that page.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from lavis.common.command import command
from lavis.common.errors import DataError
from lavis.common.storage.atomic import write_text
from lavis.generators.base import ImageRequest
from lavis.tasks.statistics import compare, describe, majority
from projects.quickstart import openmoji
from projects.quickstart.config import OpenmojiConfig
from projects.quickstart.generator import OpenmojiGenerator

RULE = "first_token"
RESAMPLES = 2000
SHOWN = 12  # questions in the page
COLUMNS = {
    "text": "Gemma-3-270M, text only",
    "blank": "fusion trained without pictures",
    "single": "fusion, 1 picture",
    "pictures": "fusion, 4 pictures",
    "shuffled": "fusion, 4 pictures of another object",
}
START, END = "<!-- fusion: start -->", "<!-- fusion: end -->"
GEMMA = "Gemma is provided under and subject to the Gemma Terms of Use, ai.google.dev/gemma/terms"
STYLE = (
    "<style>:root{color-scheme:light dark}.fusion{max-width:1180px;margin:0 auto;padding:12px 20px "
    "60px;font:15px/1.5 system-ui,sans-serif;--right:#1f7f59;--wrong:#b4492a;--rule:#dfe5eb}"
    "@media(prefers-color-scheme:dark){.fusion{--right:#5fc898;--wrong:#f0916f;--rule:#343d48}}"
    ".fusion .table{overflow-x:auto}.fusion table{border-collapse:collapse}.fusion td,.fusion "
    "th{padding:4px 14px 4px 0;text-align:right;border-bottom:1px solid var(--rule)}.fusion td:"
    "first-child,.fusion th:first-child{text-align:left}.fusion img{width:min(96px,21%);"
    "margin:4px 6px 0 0;background:#fff}.fusion p{overflow-wrap:anywhere}"
    ".fusion .right{color:var(--right)}.fusion .wrong{color:var(--wrong)}</style>"
)
Rows = dict[str, dict[str, Any]]


def read_rows(folder: Path) -> Rows:
    """Return the answered questions of an output folder by their text."""
    path = folder / "result" / "test_epochbest.jsonl"
    if not path.is_file():
        raise DataError(f"{path}: not there; run scripts/quickstart first")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = {row["question"]: row for row in lines}
    if len(rows) < len(lines):
        sys.exit(f"{path}: a question comes twice; answers cannot be compared in pairs")
    return rows


def marks_of(rows: Rows, blank: Rows) -> dict[str, np.ndarray]:
    """Return marks of each column, (questions, prompts).

    Raises:
        DataError: the two runs asked different questions.
    """
    if rows.keys() != blank.keys():
        raise DataError("the control was asked other questions; run scripts/quickstart again")

    def column(of: Rows, name: str) -> np.ndarray:
        return np.array([of[q]["marks"][name][RULE] for q in rows], dtype=np.float64)

    found = {name: column(rows, name) for name in COLUMNS if name != "blank"}
    return {name: found[name] if name in found else column(blank, "pictures") for name in COLUMNS}


def summarize(rows: Rows, blank: Rows, seed: int) -> dict[str, Any]:
    """Return accuracy of each column in percent with intervals, and how far images lead it."""
    marks = marks_of(rows, blank)
    golds = [row["gold"] for row in rows.values()]
    most = max(sorted(set(golds)), key=golds.count)
    constant = np.array([[float(gold == most)] for gold in golds])
    table: dict[str, dict[str, Any]] = {
        "majority": {"name": f"always '{most}'", "mean": majority(golds)}
    }
    for name, said in COLUMNS.items():
        table[name] = {"name": said, **describe(marks[name], RESAMPLES, seed)}
    images = marks["pictures"].mean(axis=1, keepdims=True)
    for name, of in {"majority": constant, **marks}.items():
        if name != "pictures":
            reference = of.mean(axis=1, keepdims=True)
            table[name]["pictures_lead"] = compare(images, reference, RESAMPLES, seed)
    return {"questions": len(golds), "prompts": marks["text"].shape[1], "columns": table}


def table_lines(summary: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return the table's rows as texts: column, accuracy, its interval, the lead of images."""
    lines = [("accuracy in %", "mean", "95 % interval", "4 pictures lead by")]
    for column in summary["columns"].values():
        lead = column.get("pictures_lead")
        shown = f"{lead['difference']:+.1f} ({_between(lead['interval'])})" if lead else ""
        lines.append((column["name"], f"{column['mean']:.1f}", _between(column), shown))
    return lines


def _between(value: Any) -> str:
    ends = value.get("interval") if isinstance(value, dict) else value
    return f"{ends[0]:.1f} to {ends[1]:.1f}" if ends else ""


def section(summary: dict[str, Any], rows: Rows, blank: Rows) -> str:
    """Return the page's part: the table, some questions with images and answers, credits."""
    head, *body = table_lines(summary)
    cells = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in line)}</tr>" for line in body
    )
    headers = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    names = list(rows)
    step = max(1, len(names) // SHOWN)
    cards = "".join(_card(rows[q], blank[q]) for q in names[::step][:SHOWN])
    return (
        f"{START}{STYLE}<div class='fusion'><h2>Late fusion: colours of objects never trained on"
        f"</h2><p>{summary['questions']} objects, {summary['prompts']} prompts each; 95 % "
        "bootstrap intervals over objects. <a href='colours/report.html'>All columns and more "
        f"questions</a>.</p><div class='table'><table><tr>{headers}</tr>{cells}</table></div>"
        f"{cards}"
        f"<p>{html.escape(GEMMA)}. {html.escape(openmoji.ATTRIBUTION)}.</p></div>{END}"
    )


def _card(row: dict[str, Any], blank: dict[str, Any]) -> str:
    generator = OpenmojiGenerator(OpenmojiConfig())
    requests = [ImageRequest(p["prompt"], p["index"], p["seed"]) for p in row["pictures"][0]]
    drawn = "".join(
        f"<img alt='{html.escape(request.prompt)}' src='data:image/png;base64,{_png(image)}'>"
        for request, image in zip(requests, generator.generate(requests), strict=True)
    )
    said = {name: row["predicted"][name][RULE][2] for name in ("text", "pictures", "shuffled")}
    said["without pictures"] = blank["predicted"]["pictures"][RULE][2]
    answers = ", ".join(
        f"{name}: <b class='{'right' if word == row['gold'] else 'wrong'}'>{html.escape(word)}</b>"
        for name, word in said.items()
    )
    return f"<p><b>{html.escape(row['question'])} The answer is</b><br>{drawn}<br>{answers}</p>"


def _png(image: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def add_section(page: Path, text: str) -> None:
    """Put the section at the end of a page in place of an older one, or make the page."""
    empty = (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        "</head><body></body></html>"
    )
    old = page.read_text(encoding="utf-8") if page.is_file() else empty
    if START in old:
        old = old[: old.index(START)] + old[old.index(END) + len(END) :]
    place = old.rfind("</body>")
    write_text(page, old[:place] + text + old[place:])


@command
def main() -> None:
    """Sum up the output folder that the flags name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="folder of the quickstart")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    args = parser.parse_args()
    rows, blank = (read_rows(args.output / name) for name in ("colours", "colours_blank"))
    summary = summarize(rows, blank, args.seed)
    path = args.output / "fusion.json"
    text = json.dumps({**summary, "credit": [openmoji.ATTRIBUTION, GEMMA]}, indent=2)
    write_text(path, text + "\n")
    add_section(args.output / "report.html", section(summary, rows, blank))
    print(f"\nColours of {summary['questions']} objects never trained on")
    for name, mean, interval, lead in table_lines(summary):
        print(f"  {name:40}{mean:>6}  {interval:>14}  {lead:>22}")
    print(f"\n{args.output / 'report.html'} shows pictures and answers; figures in {path}")
    print(f"{openmoji.ATTRIBUTION}\n{GEMMA}")


if __name__ == "__main__":
    sys.exit(main())
