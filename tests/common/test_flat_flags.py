"""Flags of the released evaluation commands, and the run files they stand for."""

from __future__ import annotations

import pytest

from lavis.common import cli
from lavis.common.config import load_config
from lavis.common.errors import ConfigError
from lavis.common.flags import PROJECTS


def parse(*argv):
    return cli.parse_args("", argv, "evaluate")


def options(args):
    return dict(option.split("=", 1) for option in args.options)


def test_a_released_command_becomes_a_run_file_and_options():
    args = parse(
        *("--task imagenetvc --model_name meta-llama/Meta-Llama-3-8B --run_name llama3").split(),
        *("--pretrained_model output/llama3/ft --generate_images True --k 10 --use-icl").split(),
    )
    assert args.cfg_path.endswith("lavis/projects/vlmig/eval/imagenetvc.yaml")
    assert options(args) == {
        "model.llm": "meta-llama/Meta-Llama-3-8B",
        "model.pretrained": "output/llama3/ft",
        "model.num_images": "10",
        "datasets.benchmark.use_icl": "True",
        "run.output_dir": "output/results/llama3/imagenetvc",
    }


@pytest.mark.parametrize(
    ("flags", "count"),
    [
        (["--generate_images", "--k", "3"], "3"),
        (["--generate_images", "true", "--k", "3"], "3"),
        (["--generate_images", "False", "--k", "3"], "0"),
        (["--generate-images=0"], "0"),
        (["--k", "3"], "0"),
    ],
)
def test_pictures_are_asked_for_by_a_switch_that_also_says_no(flags, count):
    assert options(parse("--task", "boolq", *flags))["model.num_images"] == count
    assert "model.num_images" not in options(parse("--task", "squad", "--generate_images"))


def test_multiple_choice_is_named_by_its_test_set():
    args = parse("--task", "commonsense", "--testset", "hs", "--model_name", "google/gemma-2b")
    assert args.cfg_path.endswith("/hellaswag.yaml")
    assert options(args)["run.output_dir"] == "output/results/google_gemma-2b/hellaswag"
    args = parse("--task", "quac", "--no_clip_rescaling", "--options", "run.seed=1")
    assert options(args)["model.weights"] == "mean"
    assert args.options[-1] == "run.seed=1"  # what the user writes in full wins


def test_wrong_flags_are_told(capsys):
    with pytest.raises(ConfigError, match="--testset is missing"):
        parse("--task", "commonsense")
    with pytest.raises(ConfigError, match="--task: no run file 'imagenet'; did you mean"):
        parse("--task", "imagenet")
    for argv, message in (
        (["--task", "boolq", "--generate_images", "maybe"], "neither True nor False"),
        (["--k", "3"], "--task is required"),
        (["--cfg-path", "a.yaml", "--k", "3"], "--k is for commands without --cfg-path"),
        ([], "required: --cfg-path"),
    ):
        with pytest.raises(SystemExit):
            parse(*argv)
        assert message in capsys.readouterr().err
    assert cli.run_front_end("", "evaluate", ["--task", "nope"]) == 2


@pytest.mark.parametrize(
    "path", sorted((PROJECTS / "vlmig" / "eval").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_benchmark_has_a_run_file_that_loads(path, tmp_path):
    for count in (0, 2):
        options = [f"datasets.benchmark.data_dir={tmp_path}", f"model.num_images={count}"]
        config = load_config(path, options, mode="evaluate")
        assert config.run.task == "visual_questions"
        assert config.task.tokenizer == config.model.llm
        assert config.task.pictures.num_images == config.model.num_images == count
        assert config.datasets["benchmark"].benchmark in path.stem
