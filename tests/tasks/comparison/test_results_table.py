"""The table of results: published and measured figures side by side, gaps left empty."""

import json

import pytest

from lavis.tasks.comparison import results_table


@pytest.fixture
def runs(tmp_path):
    def write(name, metric, value, right=(True, False)):
        folder = tmp_path / name
        (folder / "result").mkdir(parents=True)
        figures = {"value": value, "interval": [value - 1, value + 1.5], "chance": 25.0}
        (folder / "summary.json").write_text(json.dumps({"metrics": {metric: figures}}))
        rows = [
            {"instance": str(n), "texts": list("abcd"), "label": 1, "prediction": int(mark)}
            for n, mark in enumerate(right)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "result" / "test_epochbest.jsonl").write_text(lines)
        return folder

    return write


def test_text_with_paper_and_two_systems(runs, tmp_path, capsys):
    qa, qar = runs("qa", "accuracy", 60), runs("qar", "accuracy", 50.125, right=(True, True))
    zero = runs("zero", "accuracy", 30)
    paper = tmp_path / "paper.json"
    paper.write_text(
        json.dumps({"zero-shot": {"vcr_qa": 12.5}, "student": {"v7w": 70, "snli_ve": 0}})
    )
    status = results_table.main(
        [f"vcr_qa={qa}", f"vcr_qar={qar}", f"zs:vcr_qa={zero}", "--paper", str(paper)]
    )
    assert status == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == "VCR Q -> A 25.00 12.50 60.00 [59.00, 61.50] 30.00 [29.00, 31.50]".split()
    assert lines[2] == "VCR QA -> R 25.00 50.12 [49.12, 51.62]".split()
    assert lines[3][:6] == ["VCR", "Q", "->", "AR", "6.25", "50.00"]  # one of two right in both
    assert lines[4:] == [["SNLI-VE", "0.00"], ["Visual7W,", "telling", "70.00"]]


def test_markdown_without_published_figures(runs, capsys):
    folder = runs("s", "pairwise", 20)
    assert results_table.main([f"sherlock={folder}", "--format", "markdown"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "| benchmark | chance | paper | measured |",
        "| --- | ---: | ---: | ---: |",
        "| Sherlock, comparison | 25.00 |  | 20.00 [19.00, 21.50] |",
    ]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("vcr=x", "write [SYSTEM:]BENCHMARK=FOLDER"),
        ("vcr_q2ar=x", "write [SYSTEM:]BENCHMARK=FOLDER"),
        ("v7w=gone", "one summary.json was expected, found 0"),
        ("sherlock={qa}", "has no pairwise; it has: accuracy"),
    ],
)
def test_mistakes_are_named(runs, capsys, argument, message):
    argument = argument.format(qa=runs("qa", "accuracy", 1))
    assert results_table.main([argument]) == 2
    assert message in capsys.readouterr().err
