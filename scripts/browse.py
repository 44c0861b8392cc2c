"""Browse a corpus of any size on a page of this machine: words, scores, sources, regions.

    python scripts/browse.py kept.jsonl --image-root images
    python scripts/browse.py corpus.jsonl.gz --image-root images \
        --scores critic/result/test_epochbest.jsonl --compare zero_shot/result/test_epochbest.jsonl

The corpus is indexed once, into the cache folder, and never loaded; a changed file is indexed
anew. Records that cannot be read are counted and left out. The address of the page holds all that
was asked for. `--export FILE` opens no page: it writes the selection that `--words`, `--source`,
`--score`, `--regions`, `--difference` and `--order` name.
Exit status: 0 done, 2 something cannot be used.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tqdm import tqdm

from lavis.common.command import command
from lavis.common.errors import NothingDoneError
from lavis.datasets.lck.dataset import LckDataset
from lavis.ui.browse.export import export_rows
from lavis.ui.browse.index import CorpusIndex, open_index
from lavis.ui.browse.kind import check_corpus
from lavis.ui.browse.query import COMPARED_ORDERS, DESCENDING, ORDERS, CorpusQuery, Filter
from lavis.ui.browse.score_files import ScoreFile, read_scores
from lavis.ui.serve import check_ready, named_corpus, page_parser
from lavis.ui.shown import RecordViewer


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the flags."""
    parser = page_parser((__doc__ or "").split("\n")[0])
    parser.add_argument("--score-key", default="prediction", help="field that holds the score")
    parser.add_argument("--scores", help="results of a filtering run of this very corpus")
    parser.add_argument("--compare", help="a second run's results, to be set beside the first")
    parser.add_argument(
        "--out", type=Path, help="also offer to save selections into this folder of this machine"
    )
    parser.add_argument("--page-size", type=int, default=12)
    parser.add_argument("--workers", type=int, default=min(8, os.cpu_count() or 1), help="indexing")
    chosen = parser.add_argument_group("export without a page")
    chosen.add_argument("--export", type=Path, metavar="FILE", help="write the selection here")
    chosen.add_argument("--words", default="", help='all of them; "a phrase", begin*, -without')
    chosen.add_argument("--source", nargs="*", default=[], help="any of these")
    chosen.add_argument("--score", nargs=2, type=float, metavar=("LOW", "HIGH"))
    chosen.add_argument("--regions", nargs=2, type=int, metavar=("LOW", "HIGH"))
    chosen.add_argument(
        "--difference", nargs=2, type=float, metavar=("LOW", "HIGH"), help="second score less first"
    )
    chosen.add_argument(
        "--order",
        default="file",
        help=f"{', '.join((*ORDERS, *COMPARED_ORDERS))}, each with {DESCENDING}; random",
    )
    args = parser.parse_args(argv)
    if args.page_size < 1:
        parser.error("--page-size: use 1 or more")
    return args


def find_index(
    args: argparse.Namespace, dataset: LckDataset
) -> tuple[CorpusIndex, ScoreFile | None, ScoreFile | None]:
    """Return the index, made if need be, and the scores of other files."""
    scores, compared = (
        read_scores(path, dataset, cache_dir=args.cache_dir) if path else None
        for path in (args.scores, args.compare)
    )
    with tqdm(total=len(dataset), unit="row", desc="indexing", mininterval=1, disable=None) as bar:
        index = open_index(
            dataset,
            score_key=args.score_key,
            cache_dir=args.cache_dir,
            workers=args.workers if len(dataset) > 20_000 else 0,
            tick=bar.update,
        )
        bar.update(len(dataset) - bar.n)
    check_corpus(dataset, index)
    print(f"{len(index)} records, {index.bad} of them bad {dict(index.columns.reasons) or ''}")
    index.use_scores(scores.values if scores else None, compared.values if compared else None)
    return index, scores, compared


def run(args: argparse.Namespace) -> None:
    """Serve the page, or export."""
    if not args.export:
        check_ready(args.port)
    dataset = named_corpus(args)
    index, scores, compared = find_index(args, dataset)
    query = CorpusQuery(index)
    if args.export:
        selection = Filter(
            text=args.words,
            sources=tuple(args.source),
            score=tuple(args.score or (None, None)),
            regions=tuple(args.regions or (None, None)),
            difference=tuple(args.difference or (None, None)),
            order=args.order,
        )
        done = export_rows(dataset, query.select(selection), args.export, scores=scores)
        print(f"{done.written} records written to {done.path}, {done.skipped} could not be read")
        if not done.written:
            raise NothingDoneError(f"{done.path}: empty, no record was selected and read")
        return
    from lavis.ui import markup
    from lavis.ui.browse.page import build_page, download_route
    from lavis.ui.browse.service import BrowseService
    from lavis.ui.serve import serve

    viewer = RecordViewer(dataset, max_side=480)
    title = Path(args.corpus[0]).name
    service = BrowseService(
        viewer,
        query,
        args.out,
        scores=scores,
        compared=compared,
        page_size=args.page_size,
        name=title,
    )
    serve(
        build_page(service, title),
        port=args.port,
        css=markup.style("browse"),
        head=markup.script("browse"),
        routes=[download_route(service)],
    )


@command
def main(argv: list[str] | None = None) -> None:
    """Browse the corpus that the flags name."""
    run(parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
