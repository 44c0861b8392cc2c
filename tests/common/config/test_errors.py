"""Every fault of a configuration is told at once: unknown keys, then wrong values, then files."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic.dataclasses import dataclass

from lavis.common.cli import run_front_end
from lavis.common.config.fields import STRICT, ExistingPath, OutputFolder
from lavis.common.config.loading import load_config, load_model_config
from lavis.common.config.sections import load_sections
from lavis.common.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
RUN = """
model: {{arch: blip2_critic, model_type: pretrain, image_size: 28}}
datasets:
  unified_vqa_binary:
    build_info:
      annotations: {{test: {{storage: [records.jsonl]}}}}
      images: {{storage: {folder}, ann_root: {folder}}}
    vis_processor: {{eval: {{name: blip_image_eval, image_size: "${{model.image_size}}"}}}}
run: {{task: multimodal_classification, output_dir: {folder}/out, test_splits: [test]}}
"""
DATA = "datasets.unified_vqa_binary"


@pytest.fixture
def run_file(tmp_path):
    (tmp_path / "records.jsonl").touch()
    path = tmp_path / "run.yaml"
    path.write_text(RUN.format(folder=tmp_path))
    return path


def faults(path: Path, *options: str, **more) -> list[str]:
    """Return the lines that a run file is refused with; none where it is accepted."""
    try:
        load_config(path, list(options), **more)
    except ConfigError as error:
        return str(error).split("\n")
    return []


def test_the_run_file_itself_is_right(run_file):
    assert faults(run_file) == []


def test_a_misspelt_key_and_a_missing_folder_are_told_together(run_file):
    folder = f"{DATA}.build_info.images.storage=/none/images"
    told = faults(run_file, folder, "run.batch_size_evl=4")
    assert told[0].startswith("--options, run.batch_size_evl: unknown key; did you mean 'batch_siz")
    missing = f"{DATA}.build_info.images.storage: no such image folder: /none/images"
    assert told[1:] == [f"--options, {missing}"]
    reverse = faults(run_file, "run.batch_size_evl=4", folder)
    assert reverse == told, "in the order of kinds, not of options"


def test_faults_of_every_section_and_kind_in_one_go(run_file):
    told = faults(
        run_file,
        f"{DATA}.build_info.annotations.test.storage=[none.jsonl]",  # a file
        f"{DATA}.build_info.annotations.test.region_mapping=/none/mapping.jsonl",  # another
        f"{DATA}.max_pixels=0",  # a check of the section
        f"{DATA}.max_pixel=3",  # unknown
        "model.vit.depht=3",  # unknown, nested
        "model.drop_path_rate=big",  # type
        "run.num_workers=-1",  # a check of the section
        "run.batch_size_eval=0",  # another of the same
        "run.log_freq=often",  # type, which keeps the checks from running
        "run.lr_sched=cosinus",  # unknown name
        "run.amp_dtype=fp8",  # choice
        "runs.seed=1",  # unknown section
        "model.vit.weights=/none/vit.pth",
    )
    keys = [line.split(", ")[1].split(":")[0] for line in told]
    unknown, wrong, absent = keys[:3], keys[3:-3], keys[-3:]
    assert set(unknown) == {"runs", f"{DATA}.max_pixel", "model.vit.depht"}
    assert set(wrong) == {
        f"{DATA}.max_pixels", "model.drop_path_rate", "run.num_workers", "run.batch_size_eval",
        "run.log_freq", "run.lr_sched", "run.amp_dtype",
    }  # fmt: skip
    assert set(absent) == {
        "model.vit.weights",
        f"{DATA}.build_info.annotations.test.storage",
        f"{DATA}.build_info.annotations.test.region_mapping",
    }
    assert len(set(told)) == len(told) == 13


def test_mending_all_that_is_told_is_enough(run_file):
    """No fault hides another: each of these alone is told, and so are all together."""
    each = [
        "run.num_workers=-1", "run.timeout_minutes=0", "run.sed=1", f"{DATA}.max_pixels=-1",
        "model.freeze_vit=perhaps", "run.seed=${nothing.here}",
    ]  # fmt: skip
    alone = [faults(run_file, option) for option in each]
    assert all(len(lines) == 1 for lines in alone), alone
    assert sorted(faults(run_file, *each)) == sorted(line for lines in alone for line in lines)


def test_no_fault_is_told_that_is_none(run_file):
    """What a fault took away is neither missing nor compared with a default."""
    assert faults(run_file, "run.output_dir=${nothing.here}") == [
        "--options, run.output_dir: cannot resolve '${nothing.here}' "
        "(Interpolation key 'nothing.here' not found); set it, or give "
        "--options run.output_dir=..."
    ]
    (line,) = faults(run_file, "model.model_type=huge")
    assert "'huge' is not a model_type" in line  # image_size, which others refer to, is not known
    (line,) = faults(run_file, "run.task=clasify")
    assert "unknown task 'clasify'" in line
    (line,) = faults(run_file, f"{DATA}.type=other")
    assert "'other' is not a type" in line
    (line,) = faults(run_file, "datasets.unified_vqa_binry={}")
    assert "did you mean 'unified_vqa_binary'" in line


def test_what_training_needs_is_told_with_the_rest(run_file):
    told = faults(run_file, "run.sed=1", "run.init_lr=fast", mode="train", to_train=True)
    keys = [line.split(", ")[1].split(":")[0] for line in told]
    assert keys[0] == "run.sed" and set(keys[1:]) == {
        "run.init_lr", "run.lr_sched", "run.batch_size_train", "run.max_epoch", "run.train_splits",
    }  # fmt: skip
    assert faults(run_file, "run.evaluate=true", mode="train", to_train=True) == []


def test_options_that_cannot_be_read_are_all_told(run_file, caplog):
    told = faults(
        run_file, "run.seed=1", "run.log_freq", "=5", "run..seed=1", "run.seed=[1", "nonsense"
    )
    assert [line for line in told if "has no value" in line] == [
        "--options: 'run.log_freq' has no value; write key=value",
        "--options: 'nonsense' has no value; write key=value",
    ]
    assert len([line for line in told if "has no key" in line]) == 2
    assert any("'run.seed=[1'" in line for line in told) and len(told) == 5
    (line,) = faults(run_file, "run.test_splits[0]=test")
    assert "part of a list cannot be set; give the whole list, key=[...]" in line
    (line,) = faults(run_file, "run.seed.x=1")
    assert line.startswith("--options, run.seed: {'x': 1} found, expected a valid integer")
    with caplog.at_level(logging.WARNING):
        assert load_config(run_file, ["run.seed=1", "run.seed=2"]).run.seed == 2
    assert "run.seed is given twice; the last counts" in caplog.text


def test_keys_given_twice_are_refused_wherever_they_are(run_file):
    run_file.write_text(
        run_file.read_text()
        + "run: {seed: 1}\npreprocess:\n  a: {b: [{c: 1, c: 2}]}\n  a: 1\n  base: &x {d: 1}\n"
        + "  other: {<<: *x, e: 1}\n"
    )
    told = faults(run_file, "sed")
    assert sorted(told) == [
        "--options: 'sed' has no value; write key=value",
        "run.yaml, preprocess.a.b[0].c: given twice, in lines 12 and 12; keep one",
        "run.yaml, preprocess.a: given twice, in lines 12 and 13; keep one",
        "run.yaml, run: given twice, in lines 9 and 10; keep one",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("run: 5\n", ["model: missing section", "datasets: missing section", "run: missing sec"]),
        ("model: {arch: nothing}\n", ["unknown model 'nothing'", "datasets: missing", "run: miss"]),
        ("[1, 2]\n", ["a mapping was expected at the top"]),
        ("", ["model: missing section", "datasets: missing section", "run: missing section"]),
        ("a: [\n", ["not valid YAML"]),
        ("a: \xff\x00\n", ["not valid YAML"]),
    ],
)
def test_files_that_are_no_run_files(run_file, text, told):
    run_file.write_text(text, encoding="utf-8")
    lines = faults(run_file)
    for part in told:
        assert any(part in line for line in lines), lines
    run_file.write_bytes(b"run: {seed: \xff}\n")
    assert "cannot be read" in faults(run_file)[0]


def test_a_module_that_cannot_be_imported_is_one_fault_of_several(run_file):
    told = faults(run_file, "run.import_modules=[no_such_module_here]", "run.sed=1")
    assert "run.sed: unknown key" in told[0]
    assert told[1:] == [
        "--options, run.import_modules: cannot import no_such_module_here: "
        "No module named 'no_such_module_here'"
    ]


def test_a_models_own_section_tells_all(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_model_config("blip2_critic", "pretrain", {"image_size": "big", "imagesize": 3})
    assert len(str(caught.value).split("\n")) == 2


@dataclass(frozen=True, config=STRICT)
class Job:
    """A section of a script's run file."""

    out: OutputFolder
    count: int = 1
    seed: int = 0
    folder: ExistingPath | None = None

    def __post_init__(self):
        if self.count < 1:
            raise ConfigError(f"count is {self.count}; use 1 or more")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; use 0 or more")


def test_run_files_of_scripts_tell_all_too(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("job: {out: x, count: 0, seed: -1, cuont: 2, folder: /none}\njbo: {}\n")
    with pytest.raises(ConfigError) as caught:
        load_sections(path, ["job.folder=${x.y}", "odd"], {"job": Job})
    lines = str(caught.value).split("\n")
    assert [line.split(", ")[-1].split(":")[0] for line in lines[:2]] == ["jbo", "job.cuont"]
    assert len(lines) == 6 and all(
        any(part in line for line in lines)
        for part in ("job.count: is 0", "job.seed: is -1", "cannot resolve", "'odd' has no value")
    ), lines


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        *((place, "is a file, where a folder is needed") for place in ("file", "file/below")),
        *((place, "is a link to nothing, to /none") for place in ("dangling", "dangling/below")),
    ],
)
def test_a_place_that_can_be_no_folder_is_refused(run_file, place, reason):
    (run_file.parent / "file").touch()
    (run_file.parent / "dangling").symlink_to("/none/at/all")
    (line,) = faults(run_file, f"run.output_dir={run_file.parent / place}")
    assert "run.output_dir: " in line and reason in line


def test_faults_of_released_flags_are_told_with_those_of_the_config(capsys):
    flags = "--dataset_name cropped_vg --model_name_or_path gpt2 --learning_rate fast".split()
    more = ["--with_tracking", "--report_to", "wandbb", "--trust_remote_code", "--seed", "-1"]
    status = run_front_end("", "train", [*flags, *more, "--options", "run.log_freqq=1"])
    lines = capsys.readouterr().err.removeprefix("error: ").splitlines()
    assert status == 2 and "run.log_freqq: unknown key" in lines[0]
    assert {line.split(":")[0] for line in lines[1:5]} == {
        "--learning_rate", "--report_to", "--trust_remote_code", "--seed",
    }  # fmt: skip
    with pytest.raises(SystemExit):
        run_front_end("", "train", ["--seed", "1"])
    assert "--dataset_name and --model_name_or_path are required" in capsys.readouterr().err


def test_a_refused_command_says_all_exits_with_2_and_writes_nothing(run_file):
    before = sorted(run_file.parent.rglob("*"))
    done = subprocess.run(
        [
            *(sys.executable, "evaluate.py", "--cfg-path", str(run_file)),
            *("--options", "run.batch_size_evl=4", "--options"),
            f"{DATA}.build_info.images.storage=/none/images",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    first, second = done.stderr.splitlines()
    assert done.returncode == 2 and done.stdout == ""
    assert first.startswith("error: --options, run.batch_size_evl: unknown key")
    assert second.endswith("no such image folder: /none/images")
    assert sorted(run_file.parent.rglob("*")) == before
