"""The harness's own command line, with our model among its models."""

import sys

import pytest

from lavis.integrations import lm_eval_command


def test_without_the_harness_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(lm_eval_command, "find_spec", lambda name: None)
    assert lm_eval_command.main() == 2
    assert capsys.readouterr().err == (
        "error: lm-eval is not installed; pip install 'lavis-commonsense[eval]'\n"
    )


def test_the_harness_knows_our_model_beside_its_own():
    pytest.importorskip("lm_eval")
    from lm_eval.api.registry import get_model

    lm_eval_command.register()
    lm_eval_command.register()  # a second time changes nothing
    assert get_model("late_fusion").__name__ == "LateFusionLM"
    assert get_model("hf").__name__ == "HFLM"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("generatr=folder", "error: --model_args: unknown key 'generatr'"),
        ("k=0", "error: llm: missing"),
    ],
)
def test_a_wrong_argument_is_one_line_and_status_2(
    arguments, message, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("lm_eval")
    import functools

    from lm_eval import tasks

    # its 14,000 own files take a minute to list
    quick = functools.partial(tasks.TaskManager, include_defaults=False)
    monkeypatch.setattr(tasks, "TaskManager", quick)
    (tmp_path / "tiny.yaml").write_text("task: tiny\ndataset_path: json\ntest_split: test\n")
    given = ["--model", "late_fusion", "--model_args", arguments, "--tasks", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["lavis-lm-eval", *given])
    assert lm_eval_command.main() == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
