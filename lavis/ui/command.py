"""What the commands with a page share: flags that name a corpus, and their log."""

from __future__ import annotations

import argparse
import logging

from lavis.datasets.lck.dataset import LckDataset
from lavis.ui.shown import open_corpus


def page_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser of the flags that name a corpus and the page's port."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("corpus", nargs="+", metavar="CORPUS", help="jsonl, .gz, .zst, parquet")
    parser.add_argument("--image-root", required=True, help="folder that `image` is relative to")
    parser.add_argument("--region-mapping", help="JSONL of {image, region_locations}")
    parser.add_argument("--cache-dir", help="where indexes and unpacked files are kept")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860")
    return parser


def named_corpus(args: argparse.Namespace) -> LckDataset:
    """Open the corpus that the flags name."""
    return open_corpus(
        args.corpus, args.image_root, region_mapping=args.region_mapping, cache_dir=args.cache_dir
    )


def quiet_logging() -> None:
    """Show warnings and what is worse."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
