"""Flags of `train.py` and `evaluate.py`, and the way from a config to a runner."""

from __future__ import annotations

import argparse
import atexit
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from lavis.common import registry
from lavis.common.command import DONE, command
from lavis.common.config import catalogue
from lavis.common.config.errors import Faults
from lavis.common.config.flags import NEEDED, Flag, read_flags, released_flags
from lavis.common.config.loading import Config, Mode, load_config
from lavis.common.errors import ConfigError

DRY_RUN = "lavis.runners.dry_run:DryRun"


def parse_args(
    description: str, argv: Sequence[str] | None = None, mode: Mode = "train"
) -> argparse.Namespace:
    """Read the flags that both front ends share, and the released ones of `mode`.

    Returns:
        `cfg_path`, `options` (released flags first), `print_config`, `explain` (which overrides all
        else), and `faults` in the flags' values, to be reported with the config's.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--cfg-path", help="run file, e.g. lavis/projects/...yaml")
    parser.add_argument(
        "--options",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="values that win over the run file, e.g. run.output_dir=output/mine run.seed=1",
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print the resolved config and stop"
    )
    parser.add_argument(
        "--explain",
        metavar="KEY",
        help="say what a key or a section of run files is, e.g. run.batch_size_eval, model, help",
    )
    if mode == "evaluate":
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="print images, tokens and cost of the run, by a part of its rows; write nothing",
        )
        parser.add_argument(
            "--tokens-per-second",
            type=_speed,
            metavar="T",
            help="with --dry-run, also print the minutes at this speed",
        )
    flags = released_flags(mode)
    _add_flags(parser, flags)
    args = parser.parse_args(argv)
    args.faults = Faults()
    if args.explain is not None:
        return args
    values = {name: getattr(args, name) for name in flags if getattr(args, name) is not None}
    if values and args.cfg_path is None:
        lacking = [f"--{name}" for name in NEEDED[mode] if name not in values]
        if lacking:
            verb = "is" if len(lacking) == 1 else "are"
            parser.error(f"{' and '.join(lacking)} {verb} required where --cfg-path is not given")
        run = read_flags(mode, values, args.faults)
        if run is None:
            args.faults.check()
        else:
            args.cfg_path, args.options = run[0], [*run[1], *args.options]
    elif values:
        parser.error(f"--{next(iter(values))} is for commands without --cfg-path; use --options")
    if args.cfg_path is None:
        parser.error("the following arguments are required: --cfg-path")
    return args


def _add_flags(parser: argparse.ArgumentParser, flags: Mapping[str, Flag]) -> None:
    group = parser.add_argument_group("flags of the released commands, instead of --cfg-path")
    for name, flag in flags.items():
        names = dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"])
        options: dict[str, Any] = {"dest": name, "default": None, "metavar": "VALUE"}
        if flag.is_switch:
            options |= {"nargs": "?", "const": True, "type": _truth, "metavar": "True|False"}
        if flag.help:
            options["help"] = flag.help
        group.add_argument(*names, **options)


def _truth(text: str) -> bool:
    """Return the truth value of a word; `bool("False")`, as released, would be true."""
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return values[text.lower()]


@command
def run_front_end(description: str, mode: Mode, argv: Sequence[str] | None = None) -> int:
    """Read flags, check the config, build everything, train or evaluate; return the exit status."""
    args = parse_args(description, argv, mode)
    if args.explain is not None:
        sys.stdout.write(catalogue.explain(args.explain) + "\n")
        return DONE
    config = load_config(
        args.cfg_path, args.options, mode=mode, to_train=mode == "train", faults=args.faults
    )
    if args.print_config:
        sys.stdout.write(config.to_yaml())
        return DONE
    if mode == "evaluate" and args.dry_run:
        estimate = build_dry_run(config).estimate(args.tokens_per_second)
        sys.stdout.write(json.dumps(estimate, indent=1) + "\n")
        return DONE
    runner = build_runner(config)
    if mode == "train":
        runner.train()
    else:
        runner.evaluate()
    runner.close()
    return DONE


def build_runner(config: Config) -> Any:
    """Build task, data sets and model, in this order, and hand them to the runner.

    Processes join first, so that only rank 0 logs while the model loads; fresh weights are drawn
    after seeding, the same on every rank.
    """
    from lavis.common import dist, logger  # they import torch, which a refused config should not

    config.run.check_start()
    world = dist.start(config.run.device, config.run.timeout_minutes)
    atexit.register(world.leave)  # also after an error, so that no other rank waits
    logger.setup_logging(world.rank)
    dist.seed_everything(config.run.seed)
    with dist.building_for(world.device):
        task = registry.tasks.get(config.run.task)(config.task)
        datasets = {name: _build_splits(name, node) for name, node in config.datasets.items()}
        model = registry.models.get(config.model.arch).from_config(config.model)
    return registry.runners.get(config.run.runner)(config, task, model, datasets, world=world)


def build_dry_run(config: Config) -> Any:
    """Build task and data sets, and a model that only counts what it would read.

    Raises:
        ConfigError: the model has no such form.
    """
    arch = config.model.arch
    make = getattr(registry.models.get(arch), "for_dry_run", None)
    if make is None:
        raise ConfigError(
            f"--dry-run: model.arch {arch} reads no prompts whose tokens could be counted; use "
            "vlm_critic or endpoint_critic"
        )
    config.run.check_start()
    task = registry.tasks.get(config.run.task)(config.task)
    datasets = {name: _build_splits(name, node) for name, node in config.datasets.items()}
    return registry.load(DRY_RUN)(config, task, make(config.model), datasets)


def _speed(text: str) -> float:
    """Return a speed above 0."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} found, expected a number above 0")
    return value


def _build_splits(name: str, node: Any) -> dict[str, Any]:
    cls = registry.datasets.get(name)
    return {split: cls(node, split, name=name) for split in node.build_info.annotations}
