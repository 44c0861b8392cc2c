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
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from lavis.common.command import check_outputs, command
from lavis.common.errors import NothingDoneError, RecordError
from lavis.common.storage.atomic import AtomicFile
from lavis.datasets.files.formats import expand_paths, open_records
from lavis.datasets.files.records import RecordStore
from lavis.datasets.lck.negatives import KINDS, NegativeMaker, note_all, positive, to_line


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


def read_records(store: RecordStore) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield row number and record of the lines that are records."""
    for row in range(len(store)):
        try:
            yield row, store.read(row)
        except RecordError:
            continue


@command
def main(argv: list[str] | None = None) -> None:
    """Write the file that the flags name."""
    args = parse_args(argv)
    counts: Counter[str] = Counter()
    check_outputs([args.out], expand_paths(args.corpus))
    store = open_records(args.corpus)
    maker = NegativeMaker(
        note_all(read_records(store)),
        store.read,
        kinds=args.kinds,
        difficulties=args.difficulties,
        seed=args.seed,
    )
    with AtomicFile(args.out) as file:
        for row in range(len(store)):
            try:
                record = store.read(row)
                negatives = list(maker.make(record, args.negatives))
            except RecordError as error:
                counts[f"not used: {error.reason.split(':')[0]}"] += 1
                continue
            file.write(to_line(positive(record)))
            counts["right"] += 1
            for negative in negatives:
                file.write(to_line(negative))
                counts[f"{negative['negative']}, {negative['difficulty']}"] += 1
    print(json.dumps(dict(sorted(counts.items())), indent=1))
    if not counts["right"]:
        raise NothingDoneError(f"{', '.join(args.corpus)}: no record could be used")


if __name__ == "__main__":
    sys.exit(main())
