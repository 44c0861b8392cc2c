"""Flags of both front ends: which go together, and what is printed instead of a run."""

import pytest

from lavis.common.cli import parse_args, run_front_end

RUN_FILE = """
model: {{arch: blip2_critic, model_type: pretrain, load_pretrained: false}}
datasets:
  unified_vqa_binary:
    build_info:
      annotations: {{val: {{storage: [{folder}/r.jsonl]}}}}
      images: {{storage: {folder}}}
run: {{task: multimodal_classification, output_dir: {folder}/out, test_splits: [val], seed: 3}}
"""


def test_options_are_collected_and_a_truth_is_a_word():
    args = parse_args("", ["--cfg-path", "x.yaml", "--options", "a=1", "--options", "b=2", "c=3"])
    assert args.options == ["a=1", "b=2", "c=3"] and args.cfg_path == "x.yaml"
    args = parse_args(
        "", "--task imagenetvc --model_name m --k 3 --generate_images False".split(), "evaluate"
    )
    assert args.cfg_path.endswith("imagenetvc.yaml") and not args.faults


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "required: --cfg-path"),
        (["--k", "3"], "required where --cfg-path is not given"),
        (["--cfg-path", "x.yaml", "--k", "3"], "--k is for commands without --cfg-path"),
        (["--generate_images", "perhaps"], "'perhaps' is neither True nor False"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(argv, message, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_args("", argv, "evaluate")
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_a_resolved_config_or_a_key_is_printed_and_nothing_runs(tmp_path, capsys, monkeypatch):
    for name in ("UNIFIED_ANNOT", "UNIFIED_IMAGE_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / "r.jsonl").write_text("{}\n")
    (tmp_path / "run.yaml").write_text(RUN_FILE.format(folder=tmp_path))
    argv = ["--cfg-path", str(tmp_path / "run.yaml"), "--options", "run.seed=7", "--print-config"]
    assert run_front_end("", "evaluate", argv) == 0
    printed = capsys.readouterr().out
    assert "seed: 7" in printed and not (tmp_path / "out").exists()
    assert run_front_end("", "evaluate", ["--explain", "run.seed"]) == 0
    assert "run.seed" in capsys.readouterr().out
