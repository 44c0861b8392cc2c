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
            | {"match_scores": [1 - mark, mark, 0, 0]}
            for n, mark in enumerate(right)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "result" / "test_epochbest.jsonl").write_text(lines)
        return folder

    return write


def test_published_and_measured_systems_stand_side_by_side(runs, tmp_path, capsys):
    qa, qar = runs("qa", "accuracy", 60), runs("qar", "accuracy", 50.125, right=(True, True))
    zero = runs("zero", "accuracy", 30, right=(False, False))
    paper = tmp_path / "paper.json"
    paper.write_text(json.dumps({"another": {"v7w": 70, "snli_ve": 0}}))
    status = results_table.main(
        [f"vcr_qa={qa}", f"vcr_qar={qar}", f"zs:vcr_qa={zero}", "--paper", str(paper)]
    )
    assert status == 0
    table, pairs = capsys.readouterr().out.split("\n\n")
    lines = [line.split() for line in table.splitlines()]
    assert lines[1] == ["chance", "25.00", "25.00", "6.25"]
    last = "paper: BLIP-2 ViT-G + LSKD 59.0 56.4 33.4 29.7 40.3 68.9 40.3 79.5"
    assert last.split() in lines
    assert "paper: another 0.0 70.0".split() in lines
    measured = "measured 60.00 [59.00, 61.50] 50.12 [49.12, 51.62] 50.00".split()
    assert lines[-2][:8] == measured[:8]  # then Q->AR: one of two right in both
    assert lines[-2][7].startswith("50.00")
    assert lines[-1] == "zs 30.00 [29.00, 31.50]".split()
    assert "zs - measured VCR Q->A 2 -50.00 [-100.00, 0.00] 0 1 1".split() in [
        line.split() for line in pairs.splitlines()
    ]


def test_markdown_without_a_run_holds_the_published_rows(capsys):
    assert results_table.main(["--format", "markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 1 + 7  # head, random, seven systems
    assert lines[3] == "| paper: CLIP-Event | 52.4 | 49.2 |  |  | 22.4 |  |  |  |  |"


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
