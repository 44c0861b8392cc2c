"""Flags of the released commands, and the run files and options they stand for.

Underscores and hyphens are alike. A flag without a use here is accepted and explained.
"""

from __future__ import annotations

import functools
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from lavis.common.config.errors import FAILED, WRONG, Fault, Faults
from lavis.common.config.fields import CONFIG_ROOT
from lavis.common.errors import ConfigError, nearest

logger = logging.getLogger(__name__)

PROJECTS = CONFIG_ROOT.parent / "projects"


@dataclass(frozen=True)
class Number:
    """Numbers that a flag takes: at least `least` (if `above`, more), or words of `beside`."""

    is_whole: bool = True
    least: float = 1
    above: bool = False
    beside: tuple[str, ...] = ()

    def fault(self, value: Any) -> str | None:
        """Return the fault of a value, or None."""
        text = str(value).strip()
        if text in self.beside:
            return None
        wanted = f"a {'whole ' if self.is_whole else ''}number"
        wanted += f" {'above' if self.above else 'from'} {self.least:g}"
        wanted += "" if self.above else " on"
        wanted += "".join(f", or '{word}'" for word in self.beside)
        try:
            number = int(text) if self.is_whole else float(text)
            is_finite = math.isfinite(number)
        except (ValueError, OverflowError):  # the latter: more digits than a float has room for
            return f"'{text[:60]}' found, expected {wanted}"
        is_right = number > self.least if self.above else number >= self.least
        return None if is_right and is_finite else f"{text[:60]} found, expected {wanted}"


@dataclass(frozen=True)
class Flag:
    """A flag of the released commands.

    Attributes:
        keys: config keys that get its value, if any; `*` stands for each data set.
        is_switch: takes true or false, or stands alone for true.
        retired: why it changes nothing.
    """

    keys: tuple[str, ...] = ()
    is_switch: bool = False
    retired: str | None = None
    number: Number | None = None

    @property
    def help(self) -> str | None:
        """The flag's `--help` text."""
        return f"no effect: {self.retired}" if self.retired else ", ".join(self.keys) or None


TESTSETS = {"hs": "hellaswag"}  # released names of a run file
RELEASED_DATA = {"imagenetvc": "evaluation_data/imagenetvc"}  # data of the released clones
TRAIN_DATASETS = ("cropped_vg", "laion_220", "wiki")  # found by name in --dataset_name
NEEDED = {"train": ("dataset_name", "model_name_or_path"), "evaluate": ("task",)}


@functools.cache
def released_flags(mode: str) -> Mapping[str, Flag]:
    """Return the flags of `configs/released_flags.yaml` for `train` or `evaluate`, by name."""
    tree = yaml.safe_load((CONFIG_ROOT / "released_flags.yaml").read_text(encoding="utf-8"))
    return TypeAdapter(dict[str, Flag]).validate_python(tree[mode])


def read_flags(mode: str, values: dict[str, Any], faults: Faults) -> tuple[str, list[str]] | None:
    """Return the run file and the options that released flags stand for.

    Args:
        mode: `train` or `evaluate`.
        values: flag -> value, those of `NEEDED` among them.
        faults: gets a line for each value that stands for nothing, which is then left out.

    Returns:
        None where no run file is named.
    """
    flags = released_flags(mode)
    # scripts print `None` for a flag without a value
    values = {name: value for name, value in values.items() if value != "None"}
    for name, value in list(values.items()):
        if flags[name].retired:
            logger.warning("--%s has no effect: %s", name, flags[name].retired)
        number = flags[name].number
        fault = number.fault(value) if number else None
        if fault is not None:
            faults.add([Fault(WRONG, f"--{name}: {fault}")])
            del values[name]
    if mode == "train":
        run = faults.attempt(training_run, values, faults)
    else:
        run = faults.attempt(evaluation_run, values)
    return None if run is FAILED else run


def evaluation_run(values: dict[str, Any]) -> tuple[str, list[str]]:
    """Return the run file and the options of an evaluation.

    Images are used only with `generate_images`, as released; results go to
    `<output_dir>/results/<run_name>/<benchmark>`, where each model has its own `run_name`. Data
    that the released clones hold are taken from there when the working directory is one.

    Raises:
        ConfigError: `--task` or `--testset` names no run file.
    """
    testset = values.get("testset")
    if values["task"] == "commonsense" and testset is None:
        raise ConfigError("--testset is missing; --task commonsense needs it, e.g. --testset piqa")
    name = str(testset if values["task"] == "commonsense" else values["task"])
    name = TESTSETS.get(name, name)
    folder = PROJECTS / "vlmig" / "eval"
    names = [path.stem for path in folder.glob("*.yaml")]
    if name not in names:
        flag = "--testset" if values["task"] == "commonsense" else "--task"
        raise ConfigError(f"{flag}: no run file '{name}'{nearest(name, [*names, 'commonsense'])}")
    options = _options("evaluate", values, [])
    if not values.get("generate_images"):
        options.append("model.num_images=0")
        if "k" in values:
            logger.warning(
                "--k has no effect without --generate_images: questions are answered from the text "
                "alone"
            )
    elif "k" in values:
        options.append(f"model.num_images={values['k']}")
        if int(values["k"]) == 0:
            logger.warning("--k 0: --generate_images makes no image; the text answers alone")
    if values.get("generate_images") and not values.get("pretrained_model"):
        logger.warning(
            "--generate_images without --pretrained_model: images are made and weighed, but "
            "nothing was trained to read them; the block starts as identity, so that each image "
            "predicts what the text alone does. Name trained weights to see what images do"
        )
    data = RELEASED_DATA.get(name)
    if data and not values.get("data_dir") and not values.get("imagenetvc_dir"):
        options += [f"datasets.benchmark.data_dir={data}"] if Path(data).is_dir() else []
    if values.get("no_clip_rescaling"):
        options += ["model.weights=mean", "model.weight_multiplier=0.5"]
    run = _file_name(values.get("run_name") or values.get("model_name") or "run")
    output = values.get("output_dir") or "output"
    options.append(f"run.output_dir={output}/results/{run}/{name}")
    return str(folder / f"{name}.yaml"), options


def training_run(values: dict[str, Any], faults: Faults) -> tuple[str, list[str]]:
    """Return the run file and the options of a training.

    Checkpoints and logs go to `<output_dir>/<run_name>`, and after each epoch the released code's
    file to `<output_dir>/<run_name>_<epoch>.bin`.

    Raises:
        ConfigError: `--dataset_name` names no data set; other faults are added to `faults`.
    """
    datasets = _datasets(str(values["dataset_name"]))
    if values.get("trust_remote_code"):
        text = (
            "--trust_remote_code: code from model repositories is not run; name a model of a "
            "family that transformers knows"
        )
        faults.add([Fault(WRONG, text)])
    options = [f"datasets.{name}.type=default" for name in datasets]
    options.append("run.train_splits=[train]")
    options += _options("train", values, datasets)
    data = faults.attempt(_data_options, values, datasets)
    options += [] if data is FAILED else data
    if values.get("run_bf16"):
        options += ["run.amp=true", "model.llm_dtype=bf16"]
    if values.get("with_tracking"):
        trackers = faults.attempt(_trackers, values.get("report_to", "wandb"))
        options += [] if trackers is FAILED else [f"run.trackers=[{','.join(trackers)}]"]
    elif "report_to" in values:
        logger.warning("--report_to has no effect without --with_tracking, as released")
    if values.get("max_train_steps"):
        # counted in optimizer steps; they win over epochs, as released
        steps = int(values["max_train_steps"]) * int(values.get("gradient_accumulation_steps", 1))
        options += ["run.runner=runner_iter", f"run.max_iters={steps}"]
        options.append(f"run.iters_per_inner_epoch={steps}")
    every = values.get("checkpointing_steps")
    if every is not None and every != "epoch":  # a checkpoint follows each epoch anyway
        options.append(f"run.save_every_steps={every}")
    place = f"{values.get('output_dir') or 'output'}/{_file_name(values.get('run_name') or 'test')}"
    options += [f"run.output_dir={place}", f"run.export_vlmig={place}"]
    return str(PROJECTS / "vlmig" / "train" / "flat_flags.yaml"), options


def _options(mode: str, values: Mapping[str, Any], datasets: list[str]) -> list[str]:
    """Return `key=value` of every flag that sets config keys."""
    options = []
    for flag, value in values.items():
        for key in released_flags(mode)[flag].keys:
            names = datasets if "*" in key else [""]
            options += [f"{key.replace('*', name)}={value}" for name in names]
    return options


def _datasets(text: str) -> list[str]:
    """Return the data sets whose names a text contains."""
    names = [name for name in TRAIN_DATASETS if name in text]
    if not names:
        raise ConfigError(
            f"--dataset_name: '{text}' names none of {', '.join(TRAIN_DATASETS)}; a run file "
            "(--cfg-path) trains on any data, such as captioned_images"
        )
    return names


def _data_options(values: Mapping[str, Any], datasets: list[str]) -> list[str]:
    """Return options of single data sets."""
    options = []
    if values.get("data_dir"):
        for name in datasets:
            folder = values["data_dir"] if len(datasets) == 1 else f"{values['data_dir']}/{name}"
            options.append(f"datasets.{name}.data_dir={folder}")
    if values.get("max_train_samples"):
        if len(datasets) > 1:
            raise ConfigError(
                "--max_train_samples: with several data sets use --max_elements, rows of each"
            )
        options.append(f"datasets.{datasets[0]}.max_elements={values['max_train_samples']}")
    if "laion_220" in datasets:
        if "short" in str(values["dataset_name"]):
            options.append("datasets.laion_220.short=true")
        if values.get("laion_image_root"):
            options.append(
                f"datasets.laion_220.build_info.images.storage={values['laion_image_root']}"
            )
    if "wiki" in datasets:
        keys = {"wiki_block_size": "block_size", "wiki_num": "wiki_num"}
        sizes = {key: values[flag] for flag, key in keys.items() if values.get(flag)}
        options += [f"datasets.wiki.{key}={value}" for key, value in sizes.items()]
    return options


def _trackers(text: str) -> list[str]:
    known = ["tensorboard", "wandb"]
    names = known if text == "all" else [name.strip() for name in str(text).split(",")]
    for name in names:
        if name not in known:
            raise ConfigError(f"--report_to: unknown tracker '{name}'{nearest(name, known)}")
    return names


def _file_name(text: Any) -> str:
    return re.sub(r"[^\w.-]+", "_", str(text))
