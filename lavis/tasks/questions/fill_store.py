"""Fill the image store ahead of a run: every image of a list of texts or a run file, once."""

from __future__ import annotations

import argparse
import atexit
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import TypeAdapter, ValidationError

from lavis.common import registry
from lavis.common.command import command
from lavis.common.config.errors import explain
from lavis.common.config.loading import Config, Mode, load_config
from lavis.common.errors import ConfigError, DataError, NothingDoneError
from lavis.generators.base import ImageRequest, image_requests
from lavis.generators.config import ImagesConfig
from lavis.generators.image_files import read_json_lines
from lavis.generators.prompts import image_prompts

if TYPE_CHECKING:
    from lavis.common.dist import World
    from lavis.generators.store import ImageStore

logger = logging.getLogger("lavis.generate_images")
SCORED_AT_A_TIME = 1024


@command
def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    args = parse_arguments(arguments)
    for module in args.import_modules:
        registry.import_module(module, "--import-modules")
    from lavis.common import dist
    from lavis.common.logger import setup_logging
    from lavis.generators.build import build_store

    world = dist.start(args.device)
    setup_logging(world.rank)
    atexit.register(world.leave)  # also after an error, so that no other rank waits
    if args.cfg_path is not None:
        config, requests = of_run_file(args)
    elif args.texts is not None:
        config = images_config(args)
        requests = read_requests(args.texts, config)
    else:
        raise ConfigError("nothing to draw: name a file of texts, or --cfg-path a run file")
    if not requests:
        raise NothingDoneError("nothing to draw: there are no texts")
    store = build_store(config)
    if args.dry_run:
        if world.is_main:
            report_missing(store, requests, verify=args.verify)
    else:
        done = store.fill(requests, rank=world.rank, world_size=world.size, verify=args.verify)
        made = sum(world.gather(done.made, "images stored"))
        withheld = sum(world.gather(done.withheld, "images withheld"))
        scored = score_share(store, requests, config, world)
        scored = sum(world.gather(scored, "scores stored"))
        distinct = len(set(requests))
        if world.is_main:
            kept = f", {withheld} withheld by a safety checker" if withheld else ""
            print(
                f"{len(requests)} images asked for, {distinct} distinct: "
                f"{distinct - made - withheld} were stored, {made} made now{kept}; "
                f"{scored} scores"
            )
        if withheld == distinct:
            raise NothingDoneError("every image was withheld by the generator's safety checker")
    world.close()
    return 0


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Return the flags; their defaults are those of `ImagesConfig`."""
    default = ImagesConfig()
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("texts", type=Path, nargs="?", help=".txt or .jsonl")
    parser.add_argument("--cfg-path", help="run file, in place of texts")
    parser.add_argument(
        "--train-epochs", type=int, help="passes of a run file's training, not its evaluation"
    )
    parser.add_argument("--generator", default=default.generator, help=", ".join(generators()))
    parser.add_argument(
        "--options",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="of the generator, or run file",
    )
    parser.add_argument(
        "--import-modules", nargs="+", default=[], metavar="MODULE", help="register generators"
    )
    parser.add_argument("--num-images", type=int, default=default.num_images)
    parser.add_argument("--prompt-rule", default=default.prompt_rule)
    parser.add_argument("--anchor-words", type=int, default=default.anchor_words)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--scorer", default=None, help="clip or named: store scores too")
    parser.add_argument("--clip-model", default=default.clip_model)
    parser.add_argument("--cache-dir", default=default.cache_dir)
    parser.add_argument("--stored-size", type=int, default=default.stored_size)
    parser.add_argument("--stored-format", default=default.stored_format)
    parser.add_argument("--device", default=default.device, choices=["auto", "cpu", "cuda"])
    parser.add_argument("--verify", action="store_true", help="read entries: redo damaged ones")
    parser.add_argument("--dry-run", action="store_true", help="only count what is missing")
    return parser.parse_args(arguments)


def of_run_file(args: argparse.Namespace) -> tuple[ImagesConfig, list[ImageRequest]]:
    """Return the settings of a run file, and all images of its evaluation or training.

    With `skip_when_certain` these are more than it needs: only the model knows what is certain.

    Raises:
        ConfigError: texts are given too, or the run generates no images.
    """
    if args.texts is not None:
        raise ConfigError(f"{args.texts}: give either texts or --cfg-path, not both")
    default = vars(parse_arguments([]))
    for name in set(ImagesConfig.__dataclass_fields__) - {"options", "device"}:
        if name in default and getattr(args, name) != default[name]:
            raise ConfigError(
                f"--{name.replace('_', '-')}: the run file says it; write --options "
                f"run.images.{name}=..."
            )
    mode: Mode = "train" if args.train_epochs else "evaluate"
    config = load_config(args.cfg_path, args.options, mode=mode)
    task = config.task
    if args.train_epochs:
        return task.images, training_requests(config, args.train_epochs)
    if config.run.task != "visual_questions":
        raise ConfigError(f"{args.cfg_path}, run.task: '{config.run.task}' asks for no images")
    if not task.images.num_images:
        raise ConfigError(f"{args.cfg_path}, model.num_images is 0: the run needs no images")
    from lavis.tasks.questions.images import QuestionImages

    images = QuestionImages(task.images, task.images_per, keep_features=False)
    requests: list[ImageRequest] = []
    for name, node in config.datasets.items():
        for split in config.run.test_splits:
            requests += images.requests(registry.datasets.get(name)(node, split, name=name))
    return task.images, requests


def training_requests(config: Config, epochs: int) -> list[ImageRequest]:
    """Return the images of the first passes over training texts without own images.

    Raises:
        ConfigError: there are no such texts.
    """
    drawn = [
        registry.datasets.get(name)(node, split, name=name)
        for name, node in config.datasets.items()
        if hasattr(registry.datasets.get(name), "image_requests")
        for split in config.run.train_splits
    ]
    if not drawn:
        raise ConfigError("all data sets of the run file have images of their own")
    requests: dict[ImageRequest, None] = {}
    for dataset in drawn:
        dataset.use_images(None, seed=config.task.images.seed)
        for epoch in range(epochs):
            images = dataset.image_requests(epoch, config.run.seed)
            requests.update((ImageRequest(*image), None) for image in images)
    return list(requests)


def generators() -> list[str]:
    """Return the names of the generators."""
    return registry.generators.list()


def images_config(args: argparse.Namespace) -> ImagesConfig:
    """Return the checked settings; raises `ConfigError` that names a wrong value."""
    names = set(ImagesConfig.__dataclass_fields__) - {"options"}
    node: dict[str, Any] = {k: v for k, v in vars(args).items() if k in names}
    node["options"] = {}
    for item in args.options:
        key, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(f"--options: {item!r} has no value; write key=value")
        node["options"][key] = yaml.safe_load(value)
    try:
        return TypeAdapter(ImagesConfig).validate_python(node)
    except ValidationError as error:
        message = explain(error, ImagesConfig, node, "images", source=lambda _: "flags")
        # What a run file lists is a flag here.
        message = re.sub(r"run\.import_modules: \[([\w.]+)\]", r"--import-modules \1", message)
        raise ConfigError(message) from None


def read_requests(path: Path, config: ImagesConfig) -> list[ImageRequest]:
    """Return the images of every text, in order.

    Raises:
        DataError: the file is missing, or a line has neither text nor prompts.
    """
    if path.suffix == ".jsonl":
        lists = [_prompts(path, number, line, config) for number, line in read_json_lines(path)]
    else:
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        lists = [_by_rule(line, config) for line in lines if line.strip()]
    return [request for prompts in lists for request in image_requests(prompts, config.seed)]


def _prompts(path: Path, number: int, line: dict[str, Any], config: ImagesConfig) -> list[str]:
    prompts, text = line.get("prompts"), line.get("text")
    if isinstance(prompts, list) and all(isinstance(prompt, str) for prompt in prompts):
        return prompts
    if isinstance(text, str):
        return _by_rule(text, config)
    raise DataError(f'{path}, line {number}: write {{"text": "..."}} or {{"prompts": ["..."]}}')


def _by_rule(text: str, config: ImagesConfig) -> list[str]:
    verbatim = config.prompt_rule == "verbatim"
    return image_prompts(
        text, config.num_images, anchor_words=config.anchor_words, verbatim=verbatim
    )


def report_missing(store: ImageStore, requests: list[ImageRequest], *, verify: bool) -> None:
    """Print how many images a run would generate."""
    missing = len(store.missing(requests, verify=verify))
    distinct = len(set(requests))
    print(f"{len(requests)} images asked for, {distinct} distinct: {missing} missing")


def score_share(
    store: ImageStore,
    requests: list[ImageRequest],
    config: ImagesConfig,
    world: World,
) -> int:
    """Score this rank's share of the images and store the scores; return their number."""
    from lavis.generators.build import build_scorer

    scorer = None if store.makes_features else build_scorer(config, store.generator)
    if scorer is None or not scorer.reads_images:
        return 0
    share = list(dict.fromkeys(requests))[world.rank :: world.size]
    for start in range(0, len(share), SCORED_AT_A_TIME):
        store.scores(share[start : start + SCORED_AT_A_TIME], scorer)
        logger.info("scores: %d/%d", min(start + SCORED_AT_A_TIME, len(share)), len(share))
    return len(share)
