"""Critic-training data from any LCK file: its records as right ones, and wrong ones made of them.

    python scripts/make_negatives.py corpus.jsonl --out train_critic.jsonl
    python scripts/make_negatives.py corpus.jsonl --out hard.jsonl --difficulties hard \
        --kinds region_swap answer_swap --negatives 2 --seed 1

Writes LCK records with `reject_label`, `qa_score` and `r_score`, and `negative` and `difficulty` to
slice reports by. Records are read one at a time; those that cannot be used are counted by reason.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from lavis.common.command import check_outputs, command
from lavis.common.errors import NothingDoneError
from lavis.datasets.files.formats import expand_paths, open_records
from lavis.datasets.lck.negatives import KINDS, write_negatives


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("corpus", nargs="+", help="LCK files, right as they are")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument(
        "--difficulties", nargs="+", choices=("easy", "hard"), default=["easy", "hard"]
    )
    parser.add_argument("--negatives", type=int, default=1, help="of each record, at most")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


@command
def main(argv: list[str] | None = None) -> None:
    """Write the file that the flags name."""
    args = parse_args(argv)
    check_outputs([args.out], expand_paths(args.corpus))
    counts = write_negatives(
        open_records(args.corpus),
        args.out,
        args.negatives,
        kinds=args.kinds,
        difficulties=args.difficulties,
        seed=args.seed,
    )
    print(json.dumps(dict(sorted(counts.items())), indent=1))
    if not counts["right"]:
        raise NothingDoneError(f"{', '.join(args.corpus)}: no record could be used")


if __name__ == "__main__":
    sys.exit(main())
