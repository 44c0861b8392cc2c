"""Time the browser's index and queries on a made-up corpus.

    python scripts/bench_browse.py --rows 1000000

Writes the corpus and its index to a temporary folder, and prints seconds, bytes and peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lavis.common.command import command
from lavis.ui.browse.export import export_rows
from lavis.ui.browse.facets import FacetCounter
from lavis.ui.browse.index import open_index
from lavis.ui.browse.query import CorpusQuery, Filter, page_of
from lavis.ui.shown import open_corpus

WORDS = 30_000  # in the vocabulary; the k-th is drawn in proportion to 1 / k, as in language
LENGTHS = {"question": (6, 12), "answer": (6, 14), "rationale": (12, 26)}


def write_corpus(path: Path, rows: int) -> None:
    """Write LCK records of the usual length: 2 regions of 4, about 36 words."""
    draw = random.Random(0)
    words = [f"w{k}" for k in range(WORDS)]
    shares = [1 / (k + 1) for k in range(WORDS)]
    pool = draw.choices(words, shares, k=1_000_000)
    with open(path, "w", encoding="utf-8") as file:
        for index in range(rows):
            record: dict[str, Any] = {
                "image": f"VG_100K/{index // 8}.jpg",
                "source": f"chatgpt_style_{index % 12}",
                "split": "train",
                "index": f"made-{index}",
                "region": draw.sample(range(4), draw.randrange(4)),
                "region_all": [0, 1, 2, 3],
                "references": [
                    {
                        "name": str(k),
                        "boxes": [[k, 5, k + 60, 90]],
                        "segms": None,
                        "obj_guess": "dog",
                    }
                    for k in range(4)
                ],
                "prediction": round(draw.random(), 6),
            }
            for part, (low, high) in LENGTHS.items():
                start, length = draw.randrange(len(pool) - 40), draw.randint(low, high)
                record[part] = [*pool[start : start + length], record["region"], "."]
            file.write(json.dumps(record) + "\n")


def timed(name: str, call: Callable[[], Any]) -> Any:
    """Run a call, print its seconds, return its result."""
    start, before = time.perf_counter(), os.times()
    result = call()
    took, after = time.perf_counter() - start, os.times()
    used = sum(after[:4]) - sum(before[:4])  # of this process and those it waited for
    print(f"{name:52s} {took:9.3f} s {used:9.2f} s CPU", flush=True)
    return result


@command
def main() -> None:
    """Make the corpus, its index, and ask."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=0, help="processes that read records")
    parser.add_argument("--folder", help="where to write; default a temporary folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        corpus = folder / "corpus.jsonl"
        timed(
            f"writing {args.rows} rows (not part of the work)",
            lambda: write_corpus(corpus, args.rows),
        )
        dataset = timed("opening (offsets of all lines)", lambda: open_corpus([str(corpus)], name))
        index = timed(
            "index, once", lambda: open_index(dataset, cache_dir=name, workers=args.workers)
        )
        index = timed("index, found again", lambda: open_index(dataset, cache_dir=name))
        sizes = [path.stat().st_size / 1e6 for path in (corpus, index.path)]
        print(f"corpus {sizes[0]:.0f} MB, index {sizes[1]:.0f} MB")
        query = CorpusQuery(index)
        facets = timed("bins of all scores, once", lambda: FacetCounter(query))
        for title, wanted in {
            "everything": Filter(),
            "a rare word": Filter(text="w20000"),
            "the commonest word": Filter(text="w0"),
            "two common words, highest scores first": Filter(text="w0 w1", order="highest"),
            "a phrase of common words": Filter(text='"w0 w1"'),
            "a beginning (1,111 words)": Filter(text="w12*"),
            "word but not word, score, regions, source": Filter(
                text="w5 -w0",
                score=(0.8, None),
                regions=(2, 3),
                sources=("chatgpt_style_3", "chatgpt_style_4"),
            ),
            "everything, by source": Filter(order="source"),
            "everything, longest first": Filter(order="length-desc"),
        }.items():
            rows = timed(title, lambda wanted=wanted: query.select(wanted))
            timed("  its histogram and sources", lambda wanted=wanted: facets.count(wanted))
            page = timed(
                f"  its last page, of {len(rows)} rows", lambda rows=rows: page_of(rows, 10**9, 12)
            )
            timed(
                "  reading that page's records",
                lambda page=page: [dataset.record(i) for i in page.rows],
            )
        rows = query.select(Filter(score=(0.8, None)))
        timed(
            f"export of {len(rows)} rows", lambda: export_rows(dataset, rows, folder / "out.jsonl")
        )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


if __name__ == "__main__":
    sys.exit(main())
