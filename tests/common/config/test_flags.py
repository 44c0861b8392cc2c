"""Flags of the released commands, and the run files they stand for."""

from __future__ import annotations

import re

import pytest

from lavis.common import cli
from lavis.common.config.flags import PROJECTS, Number, released_flags
from lavis.common.config.loading import load_config
from lavis.common.errors import ConfigError


def parse(*argv):
    args = cli.parse_args("", argv, "evaluate")
    args.faults.check()
    return args


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
def test_images_are_asked_for_by_a_switch_that_also_says_no(flags, count):
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
    "path",
    sorted(p for p in (PROJECTS / "vlmig" / "eval").glob("*.yaml") if "quickstart" not in p.stem),
    ids=lambda p: p.stem,
)
def test_every_benchmark_has_a_run_file_that_loads(path, tmp_path):
    for count in (0, 2):
        options = [f"datasets.benchmark.data_dir={tmp_path}", f"model.num_images={count}"]
        config = load_config(path, options, mode="evaluate")
        assert config.run.task == "visual_questions"
        assert config.task.tokenizer == config.model.llm
        assert config.task.images.num_images == config.model.num_images == count
        assert config.datasets["benchmark"].benchmark in path.stem


SEED = (
    "--run_name test --dataset_name cropped_vg --model_name_or_path meta-llama/Meta-Llama-3-8B "
    "--output_dir output/llama3 --report_to wandb --per_device_train_batch_size 64 "
    "--num_train_epochs 1 --run_bf16 --learning_rate 5e-4 --with_tracking"
).split()


def train(*argv):
    args = cli.parse_args("", argv, "train")
    args.faults.check()
    return args


def loaded(*argv):
    args = train(*argv)
    return load_config(args.cfg_path, args.options, mode="train")


def test_the_released_training_command_becomes_a_run_file_and_options():
    config = loaded(*SEED)
    assert list(config.datasets) == ["cropped_vg"]
    run, model, task = config.run, config.model, config.task
    run.check_training()
    assert (run.task, run.output_dir) == ("visual_language_modeling", "output/llama3/test")
    assert task.export_vlmig == "output/llama3/test"  # test_0.bin beside the folder
    assert (run.batch_size_train, run.max_epoch, run.init_lr) == (64, 1, 5e-4)
    assert (run.lr_sched, run.weight_decay, run.warmup_steps) == ("linear", 0, 0)
    assert run.amp and run.amp_dtype == "bf16" and run.trackers == ["wandb"]
    assert model.llm == task.tokenizer == "meta-llama/Meta-Llama-3-8B"
    assert model.llm_dtype == "bf16" and model.fusion.init == "random"
    plain = loaded(*SEED[2:6])
    assert plain.model.llm_dtype == "fp32" and not plain.run.amp and not plain.run.trackers
    assert (plain.run.init_lr, plain.run.batch_size_train) == (5e-5, 8)


def test_data_sets_are_found_by_name_in_a_text(tmp_path):
    config = loaded(
        *("--dataset-name wiki+laion_220_short --model-name-or-path gpt2").split(),
        *("--max-elements 200000 --shuffle_data --wiki_num 103 --wiki_block_size 100").split(),
        *("--laion_image_root", str(tmp_path), "--data_dir", "data"),
    )
    laion, wiki = config.datasets["laion_220"], config.datasets["wiki"]
    assert laion.short and laion.build_info.images.storage == str(tmp_path)
    assert wiki.block_size == 100 and wiki.tokenizer == "gpt2" and wiki.shuffle_data
    assert laion.max_elements == wiki.max_elements == 200000
    assert (wiki.data_dir, laion.data_dir) == ("data/wiki", "data/laion_220")
    one = loaded(*SEED[2:6], "--data_dir", "data", "--max_train_samples", "7")
    assert one.datasets["cropped_vg"].data_dir == "data"
    assert one.datasets["cropped_vg"].max_elements == 7


def test_steps_and_schedules_count_optimizer_steps():
    run = loaded(
        *SEED[2:6],
        *(
            "--max_train_steps 10 --gradient_accumulation_steps 4 --lr_scheduler_type cosine"
        ).split(),
        *("--num_warmup_steps 2 --checkpointing_steps 5 --grad_clip 0.5 --seed 1").split(),
    ).run
    assert (run.runner, run.max_iters, run.iters_per_inner_epoch) == ("runner_iter", 40, 40)
    assert (run.accum_grad_iters, run.lr_sched, run.warmup_steps) == (4, "cosine", 2)
    assert (run.save_every_steps, run.max_grad_norm, run.seed) == (5, 0.5, 1)
    every = loaded(*SEED[2:6], "--checkpointing_steps", "epoch", "--report_to", "wandb").run
    assert every.save_every_steps is None and not every.trackers


def test_flags_that_nothing_needs_are_accepted_and_explained(caplog):
    loaded(*SEED, *"--overwrite_cache --low-cpu-mem-usage --preprocessing_num_workers 4".split())
    assert "--overwrite_cache has no effect: data are read from their own files" in caplog.text
    assert "--low_cpu_mem_usage has no effect" in caplog.text
    for name, flag in {**released_flags("train"), **released_flags("evaluate")}.items():
        assert flag.keys == () or not flag.retired, name


def test_wrong_training_flags_are_told(capsys):
    for more, message in (
        (["--dataset_name", "coco"], "--dataset_name: 'coco' names none of cropped_vg"),
        (["--trust_remote_code"], "--trust_remote_code: code from model repositories is not run"),
        (["--with_tracking", "--report_to", "wandbb"], "unknown tracker 'wandbb'; did you mean"),
        (
            ["--dataset_name", "wiki+cropped_vg", "--max_train_samples", "9"],
            "--max_train_samples: with several data sets use --max_elements",
        ),
    ):
        with pytest.raises(ConfigError, match=re.escape(message)):
            train(*SEED, *more)
    for argv, message in (
        (["--dataset_name", "wiki"], "--model_name_or_path is required"),
        (["--cfg-path", "a.yaml", "--run_bf16"], "--run_bf16 is for commands without --cfg-path"),
    ):
        with pytest.raises(SystemExit):
            train(*argv)
        assert message in capsys.readouterr().err
    train(*SEED, "--trust_remote_code", "False")


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("max_train_steps", "abc", "'abc' found, expected a whole number from 1 on"),
        ("max_train_steps", "0", "0 found, expected a whole number from 1 on"),
        ("max_train_steps", "1.5", "'1.5' found, expected a whole number"),
        ("num_warmup_steps", "-1", "-1 found, expected a whole number from 0 on"),
        ("learning_rate", "-1e-4", "-1e-4 found, expected a number above 0"),
        ("learning_rate", "nan", "nan found"),
        ("grad_clip", "-1", "-1 found, expected a number above 0"),
        ("grad_clip", "inf", "inf found"),
        ("gradient_accumulation_steps", "two", "'two' found"),
        ("checkpointing_steps", "often", "expected a whole number from 1 on, or 'epoch'"),
        ("per_device_train_batch_size", "0", "0 found"),
        ("weight_decay", "-0.1", "-0.1 found, expected a number from 0 on"),
        ("num_workers", "-2", "-2 found"),
        ("seed", "-1", "-1 found"),
        ("wiki_block_size", "x", "'x' found"),
    ],
)
def test_a_flag_that_is_no_fitting_number_is_told_in_one_line(flag, value, expected):
    with pytest.raises(ConfigError) as told:
        train(*SEED, f"--{flag}={value}")
    assert str(told.value).startswith(f"--{flag}: ") and expected in str(told.value)
    assert "\n" not in str(told.value)


def test_all_wrong_numbers_are_told_together():
    with pytest.raises(ConfigError, match=r"--k: -1 found.*\n--max_new_tokens: 'x' found"):
        parse("--task", "boolq", "--generate_images", "--k=-1", "--max_new_tokens", "x")


def test_every_flag_that_sets_a_number_says_which():
    numbers = {
        *("lr", "steps", "epoch", "norm", "decay", "iters", "seed", "workers", "tokens", "size"),
        *("multiplier", "guidance_scale", "elements", "length", "train"),
    }
    for name, flag in {**released_flags("train"), **released_flags("evaluate")}.items():
        ends = {key.rpartition(".")[2].rpartition("_")[2] for key in flag.keys}
        assert not ends & numbers or flag.number, name


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--k", "3"], "--k has no effect without --generate_images"),
        (["--generate_images"], "--generate_images without --pretrained_model: images are made"),
        (["--generate_images", "--k", "0", "--pretrained_model", "x"], "makes no image"),
        (["--generate_images", "--pretrained_model", "None"], "without --pretrained_model"),
        (["--generate_images", "--k", "3", "--pretrained_model", "x"], None),
        ([], None),
    ],
)
def test_what_flags_leave_out_is_said(flags, said, caplog):
    found = options(parse("--task", "boolq", *flags))
    assert [record.getMessage() for record in caplog.records if said is None] == []
    assert said is None or said in caplog.text
    assert found.get("model.pretrained") != "None"


def test_a_tracker_that_nobody_switches_on_is_told(caplog):
    train(*SEED[2:6], "--report_to", "wandb")
    assert "--report_to has no effect without --with_tracking" in caplog.text
    caplog.clear()
    train(*SEED)
    assert not caplog.records


@pytest.mark.parametrize("mode", ["train", "evaluate"])
def test_what_a_start_needs_is_looked_for_before_anything_loads(
    mode, tmp_path, monkeypatch, capsys
):
    def loads(*args, **kwargs):
        raise AssertionError("something was loaded")

    monkeypatch.setattr("lavis.common.dist.start", loads)
    monkeypatch.setattr("lavis.common.config.run.find_spec", lambda name: None)
    data = ["--data_dir", str(tmp_path)]
    given = [f"run.resume_ckpt_path={tmp_path / 'gone'}", "run.trackers=[wandb]"]
    base = [*SEED, *data] if mode == "train" else ["--task", "boolq", *data]
    assert cli.run_front_end("", mode, [*base, "--options", *given]) == 2
    lines = capsys.readouterr().err.split("error: ", 1)[1].splitlines()  # logs may come before
    assert lines[0].startswith("run.trackers: wandb is not installed; pip install")
    assert lines[1].startswith(f"run.resume_ckpt_path: no such file or folder: {tmp_path / 'gone'}")


FILES = sorted((PROJECTS / "vlmig" / "train").glob("*.yaml"))
RUN_FILES = [path for path in FILES if "quickstart" not in path.stem]  # test_config has these


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda p: p.stem)
def test_every_training_run_file_loads(path, tmp_path):
    given = {
        "flat_flags": ["datasets.cropped_vg.type=default", "run.train_splits=[train]"],
        "captioned_images": [
            f"datasets.captioned_images.build_info.annotations.{split}.storage={tmp_path}"
            for split in ("train", "val")
        ],
    }
    config = load_config(path, given.get(path.stem, []), mode="train")
    config.run.check_training()
    assert config.run.task == "visual_language_modeling"
    assert config.task.tokenizer == config.model.llm


NO_NUMBERS = ["1" * 400, "1" * 5000, "1e400", "nan", "-inf", "", "0x10", "True"]


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_what_is_no_number_for_any_flag(text):
    for number in (Number(), Number(least=0), Number(False, 0), Number(False, 0, above=True)):
        fault = number.fault(text)
        assert fault is not None and len(fault) < 200
        assert "found, expected a" in fault
