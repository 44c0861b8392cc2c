"""Export an LCK corpus of any size as a Hugging Face dataset folder: Parquet shards and a card.

    python scripts/export_corpus.py kept/test_filtered_0.8.jsonl --output lck_hf \\
        --license cc-by-4.0 --critic critic_ft --threshold 0.8

Rows are streamed. Bad records go to `rejects.jsonl` with the reason. The shards are record files
for our own data sets as well. Exit status: 0 all rows exported, 1 some or all
rejected, 2 a flag or a file cannot be used.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lavis.common.command import at_least, command
from lavis.common.config.renamed import present_flags
from lavis.datasets.corpus_export import CardFacts, export_corpus


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("files", nargs="+", metavar="FILES", help="jsonl, .gz, .zst, parquet, tar")
    parser.add_argument("--output", type=Path, required=True, help="folder that is written")
    parser.add_argument("--split", help="of all rows (default: each record's own, else train)")
    parser.add_argument(
        "--shard-rows", type=at_least(1), default=100_000, help="rows of a Parquet file"
    )
    parser.add_argument("--name", help="title of the card (default: the folder's name)")
    parser.add_argument("--license", default="other", help="of the texts")
    parser.add_argument("--image-source", help="where the images come from")
    parser.add_argument("--critic", help="name and version of the critic that filtered")
    parser.add_argument("--threshold", type=float, help="the score that rows reached")
    parser.add_argument("--cache-dir", help="where compressed files are unpacked")
    return parser.parse_args(present_flags(sys.argv[1:] if argv is None else argv))


@command
def main(argv: list[str] | None = None) -> int:
    """Export; returns the exit status."""
    args = parse_args(argv)
    facts = CardFacts(
        name=args.name or args.output.resolve().name,
        license=args.license,
        image_source=args.image_source,
        critic=args.critic,
        threshold=args.threshold,
    )
    rejected = export_corpus(
        args.files,
        args.output,
        facts,
        split=args.split,
        shard_rows=args.shard_rows,
        cache_dir=args.cache_dir,
    )
    return 1 if rejected else 0


if __name__ == "__main__":
    sys.exit(main())
