"""Flags of `train.py` and `evaluate.py`, and the way from a config to a runner."""

from __future__ import annotations

import argparse
import atexit
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis.common import registry
from lavis.common.config import Config, Mode, load_config
from lavis.common.errors import ConfigError, DataError, nearest

PROJECTS = Path(__file__).resolve().parent.parent / "projects"


@dataclass(frozen=True)
class Flag:
    """A flag of the released commands.

    Attributes:
        keys: config keys that get its value; none where `options_of` gives it another meaning.
        is_switch: takes true or false, or stands alone for true.
    """

    keys: tuple[str, ...] = ()
    is_switch: bool = False


# Flags of vLMIG's and LaMI's evaluation scripts -> config keys. Underscores and hyphens are alike.
EVALUATE_FLAGS = {
    "task": Flag(),
    "testset": Flag(),
    "model_name": Flag(("model.llm",)),
    "pretrained_model": Flag(("model.pretrained",)),
    "generate_images": Flag(is_switch=True),
    "k": Flag(),
    "use_icl": Flag(("datasets.benchmark.use_icl",), is_switch=True),
    "run_name": Flag(),
    "output_dir": Flag(),
    "data_dir": Flag(("datasets.benchmark.data_dir",)),
    "imagenetvc_dir": Flag(("datasets.benchmark.data_dir",)),
    "clip_temperature": Flag(("model.weight_multiplier",)),
    "no_clip_rescaling": Flag(is_switch=True),
    "clip_model": Flag(("run.pictures.clip_model",)),
    "sd_model": Flag(("run.pictures.options.model",)),
    "sd_steps": Flag(("run.pictures.options.steps",)),
    "sd_guidance": Flag(("run.pictures.options.guidance_scale",)),
    "max_new_tokens": Flag(("run.max_new_tokens",)),
}
TESTSETS = {"hs": "hellaswag"}  # released names of a run file


def parse_args(
    description: str, argv: Sequence[str] | None = None, mode: Mode = "train"
) -> argparse.Namespace:
    """Read the flags that both front ends share, and the released ones of `mode`.

    Returns:
        `cfg_path`, `options` (those of released flags first) and `print_config`.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--cfg-path", help="run file, e.g. lavis/projects/...yaml")
    parser.add_argument(
        "--options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="values that win over the run file, e.g. run.output_dir=output/mine run.seed=1",
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print the resolved config and stop"
    )
    flags = EVALUATE_FLAGS if mode == "evaluate" else {}
    if flags:
        _add_flags(parser, flags)
    args = parser.parse_args(argv)
    given = {name: getattr(args, name) for name in flags if getattr(args, name) is not None}
    if given and args.cfg_path is None:
        if "task" not in given:
            parser.error("--task is required where --cfg-path is not given")
        args.cfg_path, options = evaluation_run(given)
        args.options = [*options, *args.options]
    elif given:
        parser.error(f"--{next(iter(given))} is for commands without --cfg-path; use --options")
    if args.cfg_path is None:
        parser.error("the following arguments are required: --cfg-path")
    return args


def _add_flags(parser: argparse.ArgumentParser, flags: dict[str, Flag]) -> None:
    group = parser.add_argument_group("flags of the released commands, instead of --cfg-path")
    for name, flag in flags.items():
        names = dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"])
        options: dict[str, Any] = {"dest": name, "default": None, "metavar": "VALUE"}
        if flag.is_switch:
            options |= {"nargs": "?", "const": True, "type": _truth, "metavar": "True|False"}
        if flag.keys:
            options["help"] = f"sets {', '.join(flag.keys)}"
        group.add_argument(*names, **options)


def _truth(text: str) -> bool:
    """Return the truth value of a word; `bool("False")`, as released, would be true."""
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return values[text.lower()]


def evaluation_run(given: dict[str, Any]) -> tuple[str, list[str]]:
    """Return the run file and the options that released flags stand for.

    Pictures are used only with `generate_images`, as released; results go to
    `<output_dir>/results/<run_name>/<benchmark>`, where each model has its own `run_name`.

    Raises:
        ConfigError: `--task` or `--testset` names no run file.
    """
    testset = given.get("testset")
    if given["task"] == "commonsense" and testset is None:
        raise ConfigError("--testset is missing; --task commonsense needs it, e.g. --testset piqa")
    name = str(testset if given["task"] == "commonsense" else given["task"])
    name = TESTSETS.get(name, name)
    folder = PROJECTS / "vlmig" / "eval"
    names = [path.stem for path in folder.glob("*.yaml")]
    if name not in names:
        flag = "--testset" if given["task"] == "commonsense" else "--task"
        raise ConfigError(f"{flag}: no run file '{name}'{nearest(name, [*names, 'commonsense'])}")
    options = [
        f"{key}={value}" for flag, value in given.items() for key in EVALUATE_FLAGS[flag].keys
    ]
    if not given.get("generate_images"):
        options.append("model.num_images=0")
    elif "k" in given:
        options.append(f"model.num_images={given['k']}")
    if given.get("no_clip_rescaling"):
        options += ["model.weights=mean", "model.weight_multiplier=0.5"]
    run = given.get("run_name") or given.get("model_name") or "run"
    run = re.sub(r"[^\w.-]+", "_", str(run))
    output = given.get("output_dir") or "output"
    options.append(f"run.output_dir={output}/results/{run}/{name}")
    return str(folder / f"{name}.yaml"), options


def run_front_end(description: str, mode: Mode, argv: Sequence[str] | None = None) -> int:
    """Read flags, check the config, build everything, then train or evaluate.

    Returns:
        The exit status: 0, or 2 after a configuration or data error told in plain words.
    """
    try:
        args = parse_args(description, argv, mode)
        config = load_config(args.cfg_path, args.options, mode=mode)
        if mode == "train" and not config.run.evaluate:
            config.run.check_training()
        if args.print_config:
            sys.stdout.write(config.to_yaml())
            return 0
        runner = build_runner(config)
        if mode == "train":
            runner.train()
        else:
            runner.evaluate()
        runner.close()
    except (ConfigError, DataError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def build_runner(config: Config) -> Any:
    """Build task, data sets and model eagerly, in this order, and hand them to the runner.

    Processes join first, so that only rank 0 speaks while the model loads; fresh weights are drawn
    after seeding, the same on every rank.
    """
    from lavis.common import dist, logger  # they import torch, which a refused config should not

    world = dist.start(config.run.device, config.run.timeout_minutes)
    atexit.register(world.leave)  # also after an error, so that no other rank waits
    logger.setup_logging(world.rank)
    dist.seed_everything(config.run.seed)
    task = registry.tasks.get(config.run.task)(config.task)
    datasets = {name: _build_splits(name, node) for name, node in config.datasets.items()}
    model = registry.models.get(config.model.arch).from_config(config.model)
    return registry.runners.get(config.run.runner)(config, task, model, datasets, world=world)


def _build_splits(name: str, node: Any) -> dict[str, Any]:
    cls = registry.datasets.get(name)
    return {split: cls(node, split) for split in node.build_info.annotations}
