"""Let people judge localized question-answer-rationale records, on a page of this machine.

    python scripts/label_qar.py corpus.jsonl --image-root images --out labels --annotators ann,bo
    python scripts/label_qar.py corpus.jsonl --image-root images --out labels --export

The page shows the picture with its drawn regions; `?annotator=bo` in its address opens another
person's queue. Every judgement is on the disk before the next record appears, and a restart goes on
there. `--export` opens no page: it writes `critic_train.jsonl` (what the critic is trained on) and
`agreement.json` (Cohen's and Fleiss' kappa). Exit status: 0 done, 2 something cannot be used.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tqdm import tqdm

from lavis.common.arguments import at_least
from lavis.common.command import command
from lavis.common.storage import write_json, write_text
from lavis.datasets.lck import LckDataset
from lavis.ui.agreement import agreement_report
from lavis.ui.command import named_corpus, page_parser, quiet_logging
from lavis.ui.judgements import JudgementStore
from lavis.ui.label_queue import Items, LabelQueue, read_items
from lavis.ui.labelling import LabelDesk, scale_of
from lavis.ui.serve import check_ready
from lavis.ui.shown import RecordViewer
from lavis.ui.training_export import export_training


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
    return JudgementStore.known(folder) or ["annotator"]


def find_items(args: argparse.Namespace, dataset: LckDataset) -> Items:
    """Return the records to judge; bad ones are listed in `rejects.jsonl`."""
    total = len(dataset) if args.limit is None else min(args.limit, len(dataset))
    with tqdm(total=total, unit="row", desc="checking", mininterval=1, disable=None) as bar:
        items = read_items(dataset, limit=args.limit, seed=args.seed, tick=lambda: bar.update())
    lines = [json.dumps(reject, ensure_ascii=False) + "\n" for reject in items.rejects]
    rejects = args.out / "rejects.jsonl"
    write_text(rejects, "".join(lines))
    print(
        f"{len(items.items)} records to judge, {items.duplicates} duplicates left out, "
        f"{len(items.rejects)} bad ones listed in {rejects}"
    )
    return items


def export(
    args: argparse.Namespace, dataset: LckDataset, items: Items, store: JudgementStore
) -> None:
    """Write records and agreement, and print both's sums."""
    judged = store.judged()
    summary: dict[str, Any] = export_training(
        dataset,
        items.items,
        judged,
        args.out / "critic_train.jsonl",
        majority=args.majority,
        min_annotators=args.min_annotators,
    )
    report = {"export": summary, "agreement": agreement_report(judged)}
    write_json(args.out / "agreement.json", report)
    print(json.dumps(report, indent=1))


def run(args: argparse.Namespace) -> None:
    """Serve the page, or export."""
    if not args.export:
        check_ready(args.port)
    folder = args.out / "judgements"
    names = find_annotators(args, folder)
    scale = scale_of(args.steps)
    store = JudgementStore(folder, names)
    dataset = named_corpus(args)
    items = find_items(args, dataset)
    if args.export:
        export(args, dataset, items, store)
        return
    from lavis.ui import markup
    from lavis.ui.label_page import build_page
    from lavis.ui.serve import serve

    seed = args.seed if args.order == "shuffled" else None
    queue = LabelQueue(items.items, names, per_item=args.per_item, seed=seed)
    desk = LabelDesk(
        RecordViewer(dataset), queue, store, scale=scale, need_scores=not args.no_scores
    )
    serve(build_page(desk), port=args.port, css=markup.style(), head=markup.label_keys())


@command
def main(argv: list[str] | None = None) -> None:
    """Label, or export what was labelled."""
    quiet_logging()
    run(parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
