"""A labelling session: the corpus is checked, then the page is served or results are written."""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lavis.common.errors import DataError, NothingDoneError
from lavis.common.storage.atomic import write_json, write_text
from lavis.datasets.lck.dataset import LckDataset
from lavis.ui import markup
from lavis.ui.label.agreement import agreement_report
from lavis.ui.label.judgements import JudgementStore, known_annotators
from lavis.ui.label.queue import CorpusItems, LabelQueue, drawn_rows
from lavis.ui.label.service import LabelService, scale_of
from lavis.ui.label.training_export import export_comments, export_training
from lavis.ui.serve import check_ready, named_corpus, serve
from lavis.ui.shown import RecordViewer

READ_AT_ONCE = 5_000  # rows that are all checked before the page opens
CHECKED_FIRST = 100  # rows of a larger corpus that are
FULL_SIZE = 1600  # pixels of the longest side of an image, for the zoom


def run_session(args: argparse.Namespace) -> None:
    """Serve the page until it is interrupted, or export; `args` are the flags of `label_qar.py`."""
    if not args.export:
        check_ready(args.port)
    folder = args.out / "judgements"
    if args.annotators is not None:
        names = [name.strip() for name in args.annotators.split(",")]
    else:
        names = known_annotators(folder) or ["annotator"]
    scale = scale_of(args.steps)
    store = JudgementStore(folder, names)
    dataset = named_corpus(args)
    viewer = RecordViewer(dataset, max_side=FULL_SIZE)
    items = open_items(args, dataset, viewer.lock)
    if args.export:
        export(args, dataset, items, store)
        return
    from lavis.ui.label.page import build_page

    seed = args.seed if args.order == "shuffled" else None
    queue = LabelQueue(items, names, per_item=args.per_item, seed=seed)
    service = LabelService(viewer, queue, store, scale=scale, need_scores=not args.no_scores)
    page = build_page(service)
    serve(page, port=args.port, css=markup.style("label"), head=markup.script("label"), block=False)
    if not items.is_whole:
        read_behind(args.out, items)
    page.block_thread()


def open_items(
    args: argparse.Namespace, dataset: LckDataset, lock: AbstractContextManager[object]
) -> CorpusItems:
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
    """Read the remaining rows while the page is open, with pauses in which the page answers."""
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
