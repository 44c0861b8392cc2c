"""Let people judge localized question-answer-rationale records, on a page of this machine.

    python scripts/label_qar.py corpus.jsonl --image-root images --out labels --annotators ann,bo
    python scripts/label_qar.py corpus.jsonl --image-root images --out labels --export

The page shows the image with its drawn regions; `?annotator=bo` in its address opens another
person's queue. Every judgement is on the disk before the next record appears, and a restart goes on
there. `unsure` takes a record out of the queue but is no label. `--export` opens no page: it writes
`critic_train.jsonl` (what the critic is trained on), `comments.jsonl` and `agreement.json` (Cohen's
and Fleiss' kappa). Exit status: 0 done, 2 something cannot be used.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tqdm import tqdm

from lavis.common.command import at_least, command
from lavis.common.errors import DataError, NothingDoneError
from lavis.common.storage.atomic import write_json, write_text
from lavis.datasets.lck.dataset import LckDataset
from lavis.ui.label.agreement import agreement_report
from lavis.ui.label.judgements import JudgementStore, known_annotators
from lavis.ui.label.queue import CorpusItems, LabelQueue, drawn_rows
from lavis.ui.label.service import LabelService, scale_of
from lavis.ui.label.training_export import export_comments, export_training
from lavis.ui.serve import check_ready, named_corpus, page_parser
from lavis.ui.shown import RecordViewer

READ_AT_ONCE = 5_000  # rows that are all checked before the page opens
CHECKED_FIRST = 100  # rows of a larger corpus that are
FULL_SIZE = 1600  # pixels of the longest side of an image, for the zoom


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the flags."""
    parser = page_parser((__doc__ or "").split("\n")[0])
    parser.add_argument("--out", required=True, type=Path, help="folder of judgements and exports")
    parser.add_argument(
        "--annotators", help="names, as ann,bo,cy (default: those who judged, else 'annotator')"
    )
    parser.add_argument("--per-item", type=at_least(1), help="people per record (default: all)")
    parser.add_argument(
        "--limit", type=at_least(1), help="label only so many rows, drawn at random"
    )
    parser.add_argument("--order", choices=["shuffled", "file"], default="shuffled")
    parser.add_argument("--seed", type=int, default=0, help="of the draw and the order")
    parser.add_argument("--steps", type=int, default=3, help="scores from 0 to 1: 2 to 5 steps")
    parser.add_argument("--no-scores", action="store_true", help="scores may be left out")
    parser.add_argument("--export", action="store_true", help="write the results, open no page")
    parser.add_argument(
        "--majority", action="store_true", help="export: also write reject_label by majority"
    )
    parser.add_argument(
        "--min-annotators", type=int, default=1, help="export: leave out records with fewer"
    )
    return parser.parse_args(argv)


def find_annotators(args: argparse.Namespace, folder: Path) -> list[str]:
    """Return the names given, else those in the folder, else one."""
    if args.annotators is not None:
        return [name.strip() for name in args.annotators.split(",")]
    return known_annotators(folder) or ["annotator"]


def open_items(args: argparse.Namespace, dataset: LckDataset, lock: Any) -> CorpusItems:
    """Return the records to judge; a few are all read now, many while the page is open."""
    rows = drawn_rows(len(dataset), args.limit, args.seed)
    items = CorpusItems(dataset, rows, lock)
    readable = any(items.item(place) for place in range(min(CHECKED_FIRST, len(items))))
    if args.export or len(items) <= READ_AT_ONCE or not readable:
        with tqdm(
            total=len(items), unit="row", desc="checking", mininterval=1, disable=None
        ) as bar:
            items.check_all(bar.update)
        list_rejects(args.out, items)
    else:
        print(f"{len(items):,} rows, which are checked while the page is open")
    return items


def list_rejects(out: Path, items: CorpusItems) -> None:
    """Write bad records to `rejects.jsonl`, and print how many there are of each sort."""
    rejects = items.rejects
    path = out / "rejects.jsonl"
    write_text(path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rejects))
    print(
        f"{len(items.all())} records to judge, {items.duplicates} duplicates left out, "
        f"{len(rejects)} bad ones listed in {path}",
        flush=True,
    )


def read_behind(out: Path, items: CorpusItems) -> None:
    """Read what is left while the page is open, with pauses in which the page answers."""
    turns = itertools.count(1)

    def pause() -> None:
        if next(turns) % 10 == 0:
            time.sleep(0.002)

    def read() -> None:
        try:
            items.check_all(pause)
            list_rejects(out, items)
        except (DataError, OSError) as error:
            logging.warning("the corpus could not be read to its end: %s", error)

    threading.Thread(target=read, daemon=True).start()


def export(
    args: argparse.Namespace, dataset: LckDataset, items: CorpusItems, store: JudgementStore
) -> None:
    """Write records, comments and agreement, and print their sums.

    Raises:
        NothingDoneError: no record has a label that can be trained on.
    """
    judgements = store.judgements()
    summary: dict[str, Any] = export_training(
        dataset,
        items.all(),
        judgements,
        args.out / "critic_train.jsonl",
        majority=args.majority,
        min_annotators=args.min_annotators,
    )
    summary["comments"] = export_comments(judgements, args.out / "comments.jsonl")
    report = {"export": summary, "agreement": agreement_report(judgements)}
    write_json(args.out / "agreement.json", report)
    print(json.dumps(report, indent=1))
    if not summary["written"]:
        raise NothingDoneError(f"{summary['file']}: empty, no record has a label to train on")


def run(args: argparse.Namespace) -> None:
    """Serve the page, or export."""
    if not args.export:
        check_ready(args.port)
    folder = args.out / "judgements"
    names = find_annotators(args, folder)
    scale = scale_of(args.steps)
    store = JudgementStore(folder, names)
    dataset = named_corpus(args)
    viewer = RecordViewer(dataset, max_side=FULL_SIZE)
    items = open_items(args, dataset, viewer.lock)
    if args.export:
        export(args, dataset, items, store)
        return
    from lavis.ui import markup
    from lavis.ui.label.page import build_page
    from lavis.ui.serve import serve

    seed = args.seed if args.order == "shuffled" else None
    queue = LabelQueue(items, names, per_item=args.per_item, seed=seed)
    service = LabelService(viewer, queue, store, scale=scale, need_scores=not args.no_scores)
    page = build_page(service)
    serve(page, port=args.port, css=markup.style("label"), head=markup.script("label"), block=False)
    if not items.is_whole:
        read_behind(args.out, items)
    page.block_thread()


@command
def main(argv: list[str] | None = None) -> None:
    """Label, or export what was labelled."""
    run(parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
