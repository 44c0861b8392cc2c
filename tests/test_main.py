"""`python -m lavis`: the front ends by name."""

import sys

import pytest

from lavis import __main__ as entry
from lavis.common.config.files import PACKAGE, run_file

RUN = "lavis/projects/vlmig/eval/piqa.yaml"


@pytest.mark.parametrize("argv, status", [(["--help"], 0), ([], 2), (["tran"], 2)])
def test_without_a_command_it_says_how_it_is_used(monkeypatch, capsys, argv, status):
    monkeypatch.setattr(sys, "argv", ["__main__.py", *argv])
    assert entry.main() == status
    said = capsys.readouterr()
    assert (said.err if status else said.out).startswith("usage: python -m lavis {train,evaluate}")


def test_a_command_reads_its_flags_and_is_called_by_its_name(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["x", "evaluate", "--cfg-path", RUN, "--print-config"])
    assert entry.main() == 0
    assert "task: visual_questions" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["x", "train", "--help"])
    with pytest.raises(SystemExit, match="0"):
        entry.main()
    assert capsys.readouterr().out.startswith("usage: python -m lavis train [-h]")


def test_a_run_file_of_ones_own_comes_before_the_shipped_one(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run_file(RUN) == PACKAGE.parent / RUN
    assert str(run_file("lavis/none.yaml")) == "lavis/none.yaml"
    (tmp_path / RUN).parent.mkdir(parents=True)
    (tmp_path / RUN).write_text("run: {}")
    assert str(run_file(RUN)) == RUN
