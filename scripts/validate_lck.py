"""Check record files without a model, set bad records aside, and sum up the corpus.

    python scripts/validate_lck.py train.jsonl.gz val.jsonl --image-root images
    python scripts/validate_lck.py train.jsonl.gz --image-root images --rejects rejects.jsonl

Prints counts and the first bad records; `--rejects` lists them all (file, line, index, reason).
Nothing is written that no flag names. Memory stays near 24 bytes a row. Exit status: 0 every record
is good, 1 some are bad, 2 the files cannot be read.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lavis.common.command import at_least, check_outputs, command
from lavis.common.errors import ConfigError, RecordError
from lavis.common.registry import datasets
from lavis.common.storage.atomic import AtomicFile, write_json

SHOWN = 5  # bad records that are printed
CHUNK = 1000  # rows a worker takes at a time


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+", metavar="FILES", help="jsonl, .gz, .zst, parquet, tar")
    parser.add_argument("--image-root", default="", help="folder that `image` is relative to")
    parser.add_argument("--region-mapping", help="JSONL of {image, region_locations}")
    parser.add_argument(
        "--kind", choices=["lck", "laion"], default="lck", help="LCK records, or image captions"
    )
    parser.add_argument("--training", action="store_true", help="require critic-training labels")
    parser.add_argument("--rejects", metavar="FILE", help="list all bad records here, JSON lines")
    parser.add_argument("--summary", help="also write the summary as JSON to this file")
    parser.add_argument(
        "--check-images",
        choices=["none", "header", "decode"],
        help="none: names only; header: size and boxes; decode: every pixel "
        "(default: decode with --image-root, else none for LCK files)",
    )
    parser.add_argument("--max-pixels", type=at_least(1), help="largest picture that is accepted")
    parser.add_argument("--max-words", type=at_least(1), default=70, help="where texts are cut")
    parser.add_argument(
        "--follow-symlinks", action="store_true", help="allow links out of the root"
    )
    parser.add_argument("--workers", type=at_least(0), default=0, help="processes beside this one")
    parser.add_argument("--cache-dir", help="where compressed files are unpacked")
    return parser.parse_args(argv)


def open_dataset(args: argparse.Namespace) -> Any:
    """Return the data set of the files, with a text processor that cuts nothing."""
    from pydantic import TypeAdapter, ValidationError

    from lavis.datasets.files.images import ImageRoot

    name = {"lck": "unified_vqa_binary", "laion": "laion_sample_extracted"}[args.kind]
    split = "train" if args.training else "test"
    source = {"storage": args.files, "region_mapping": args.region_mapping}
    node: dict[str, Any] = {
        "build_info": {
            "annotations": {split: source},
            "images": {"storage": args.image_root},
        },
        "follow_symlinks": args.follow_symlinks,
        "cache_dir": args.cache_dir,
    }
    if args.max_pixels:
        node["max_pixels"] = args.max_pixels
    try:
        config = TypeAdapter(datasets.config_class(name)).validate_python(node)
    except ValidationError as error:
        lines = [problem["msg"].removeprefix("Value error, ") for problem in error.errors()]
        raise ConfigError("; ".join(lines)) from None
    dataset = datasets.get(name)(config, split, name=name)
    if args.check_images is None:
        args.check_images = "decode" if args.image_root or holds_images(dataset) else "none"
    if args.check_images == "none":
        dataset.pictures = ImageRoot(args.image_root or ".", must_exist=False)
    return dataset


def holds_images(dataset: Any) -> bool:
    """Tell whether images are stored with the records, as in tar shards and folders."""
    try:
        return dataset.store.image(0) is not None
    except RecordError:
        return True


class Worker:
    """The checker of one process, made once, so that chunks carry row numbers only."""

    checker: Any = None

    @classmethod
    def start(cls, dataset: Any, images: Any, word_limit: int) -> None:
        from lavis.datasets.lck.corpus import CorpusChecker

        cls.checker = CorpusChecker(dataset, images, word_limit)

    @classmethod
    def check(cls, rows: range) -> Any:
        return cls.checker.check(rows)


def checked(dataset: Any, args: argparse.Namespace) -> Iterator[Any]:
    """Yield (summary, rejects) of each chunk, in row order."""
    chunks = [range(i, min(i + CHUNK, len(dataset))) for i in range(0, len(dataset), CHUNK)]
    setup = (dataset, args.check_images, args.max_words)
    if args.workers < 1:
        Worker.start(*setup)
        yield from map(Worker.check, chunks)
        return
    with ProcessPoolExecutor(args.workers, initializer=Worker.start, initargs=setup) as pool:
        yield from pool.map(Worker.check, chunks)


def print_report(report: dict[str, Any]) -> None:
    """Print what the check found."""
    for key, value in report.items():
        if not isinstance(value, dict):
            print(f"{key:24s} {value}")
            continue
        print(f"{key}:")
        for name, count in list(value.items())[:30]:
            print(f"  {name:40s} {count}")
        if len(value) > 30:
            print(f"  ... and {len(value) - 30} more")


def place_of(reject: Mapping[str, Any]) -> str:
    """Return the line or row of a bad record, as a reader says it."""
    return f"line {reject['line']}" if "line" in reject else f"row {reject.get('row')}"


def run(args: argparse.Namespace) -> int:
    """Check the files and return the exit status."""
    from tqdm import tqdm

    from lavis.datasets.files.formats import expand_paths
    from lavis.datasets.lck.corpus import CorpusSummary

    dataset = open_dataset(args)
    mapping = [args.region_mapping] if args.region_mapping else []
    check_outputs([args.rejects, args.summary], [*expand_paths(args.files), *mapping])
    summary = CorpusSummary()
    first: list[dict[str, Any]] = []  # of the bad records
    bar = tqdm(total=len(dataset), unit="row", desc="checking", mininterval=1, disable=None)
    with AtomicFile(args.rejects) if args.rejects else io.BytesIO() as out, bar:
        for part, rejects in checked(dataset, args):
            summary.merge(part)
            first += rejects[: SHOWN - len(first)]
            for reject in rejects if args.rejects else []:
                out.write(json.dumps(reject, ensure_ascii=False).encode() + b"\n")
            bar.update(part.rows)
    report = {**summary.report(), "images_checked": args.check_images}
    print_report(report)
    if args.summary:
        write_json(args.summary, report)
    for reject in first:
        print(f"{reject['file']}, {place_of(reject)}: {reject['reason']}")
    if args.rejects:
        print(f"rejected records are listed in {args.rejects}")
    elif report["rejected"] > len(first):
        print(f"... and {report['rejected'] - len(first)} more; --rejects FILE lists them all")
    return 1 if report["rejected"] else 0


@command
def main(argv: list[str] | None = None) -> int:
    """Check the corpus that the flags name."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    return run(parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
