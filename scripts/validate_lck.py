"""Check record files without a model, set bad records aside, and sum up the corpus.

    python scripts/validate_lck.py train.jsonl.gz val.jsonl --image-root images
    python scripts/validate_lck.py train.jsonl.gz --image-root images --rejects rejects.jsonl

Prints counts and the first bad records; `--rejects` lists them all (file, line, index, reason).
Nothing is written that no flag names. Memory stays near 24 bytes a row. Exit status: 0 every record
is good, 1 some are bad, 2 the files cannot be read.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lavis.common.command import at_least, command


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


@command
def main(argv: list[str] | None = None) -> int:
    """Check the corpus that the flags name."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    args = parse_args(argv)

    from lavis.datasets.lck.corpus import validate_corpus

    return validate_corpus(**vars(args))


if __name__ == "__main__":
    sys.exit(main())
