"""Time the merge of finished rows into result files, and its peak memory; imports no torch.

    python scripts/bench_merge.py --rows 1000000

Rows are journaled in shuffled units first, as many processes would; the timed part reads them in
data-set order and writes score list, JSON lines, Parquet, filtered corpus, summary and report.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from lavis.common.command import command
from lavis.common.registry import tasks
from lavis.common.storage.journal import Journal, JournalReader
from lavis.tasks.config import ClassificationConfig


class SyntheticCorpus:
    """Rows whose records are made when asked for, so that only the merge is measured."""

    name, split = "synthetic", "test"

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def record(self, index: int) -> dict[str, Any]:
        """Return an LCK record."""
        return {
            "image": f"{index // 4:07d}.jpg",
            "source": "synthetic",
            "index": f"synthetic-{index}",
            "region": ["0"],
            "question": ["What", "is", [0], "doing", "?"],
            "answer": ["Reading", "."],
            "rationale": [[0], "holds", "a", "book", "."],
        }


def merge(rows: int) -> None:
    """Journal synthetic rows in shuffled units, then time reading and writing them in order."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rng = np.random.default_rng(0)
        scores = rng.random(rows, dtype=np.float32)
        order = rng.permutation(rows)
        journal = Journal(folder / "journal", {"bench": rows}, 0)
        text = "what is [0] doing ? answer: reading . rationale: [0] holds a book ."
        for unit, start in enumerate(range(0, rows, 32)):
            numbers = order[start : start + 32].tolist()
            journal.append(
                unit,
                [
                    (
                        i,
                        {
                            "text": text,
                            "instance": f"synthetic-{i}",
                            "index": i,
                            "prediction": int(scores[i] > 0.5),
                            "score": float(scores[i]),
                        },
                    )
                    for i in numbers
                ],
            )
        journal.close()
        task = tasks.get("multimodal_classification")(
            ClassificationConfig(keep_above=[0.8], report_examples=0)
        )
        before = peak_megabytes()
        start = time.perf_counter()
        reader = JournalReader(folder / "journal", {"bench": rows})
        task.finish(reader, SyntheticCorpus(rows), folder, "test_epochbest")
        seconds = time.perf_counter() - start
        written = sum(1 for _ in open(folder / "result" / "test_epochbest.jsonl"))
        assert written == rows, (written, rows)
        print(
            f"\nmerge of {rows:,} rows: {seconds:.1f} s, peak memory {peak_megabytes():.0f} MB"
            f" (before the merge {before:.0f} MB)"
        )


def peak_megabytes() -> float:
    """Return this process's largest resident size so far.

    `getrusage` would also count the process that started this one, from before the program began.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@command
def main() -> None:
    """Merge as many rows as the flag says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    merge(parser.parse_args().rows)


if __name__ == "__main__":
    sys.exit(main())
