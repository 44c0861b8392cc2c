"""The index holds what a plain reading of the files gives, whatever their form."""

import gzip
import json
import subprocess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browse_records import make_records, scan
from hypothesis import given, settings
from hypothesis import strategies as st
from label_items import read_items
from odd_values import ODD, as_json, spoiled

from lavis.common.errors import RecordError
from lavis.ui.browse.export import export_rows
from lavis.ui.browse.index import open_index
from lavis.ui.browse.query import CorpusQuery, Filter
from lavis.ui.label.judgements import content_key
from lavis.ui.shown import RecordViewer, open_corpus


def test_bad_records_are_counted_and_left_out(corpus):
    records, _, query = corpus
    assert query.index.bad == 3 and len(query.index) == 63
    assert query.index.columns.reasons == {
        "malformed line": 1, "unknown region id": 1, "missing field": 1,
    }  # fmt: skip
    assert query.select(Filter()).tolist() == scan(records, lambda r: True)
    assert query.index.columns.sources == ["s0", "s1", "s2"]


def test_words_of_every_script_are_whole(world):
    records = [
        world.record(i, question=[word], answer=["Yes"], rationale=["so"], region=[1])
        for i, word in enumerate(["कि", "की", "ผู้ชาย", "நாய்", "re\u0301sume\u0301"])
    ]
    query = CorpusQuery(open_index(world.open(records), cache_dir=str(world.folder / "cache")))
    for text, rows in [("कि", [0]), ("की", [1]), ("ผู้ชาย", [2]), ("ய", []), ("resume", [4])]:
        assert query.select(Filter(text=text)).tolist() == rows


@pytest.mark.parametrize("form", ["gz", "zst", "parquet"])
def test_other_forms_give_the_same(world, form):
    records = make_records(world, 12)
    plain = world.write(records)
    path = f"{plain}.{form}"
    if form == "gz":
        with gzip.open(path, "wb") as file:
            file.write(open(plain, "rb").read())
    elif form == "zst":
        with pa.CompressedOutputStream(path, "zstd") as file:
            file.write(open(plain, "rb").read())
    else:
        columns = {
            key: [r.get(key) if isinstance(r.get(key), (str, float, type(None)))
                  else json.dumps(r[key]) for r in records]
            for key in sorted({k for r in records for k in r})
        }  # fmt: skip
        pq.write_table(pa.table(columns), path)
    cache = str(world.folder / "cache")
    dataset = open_corpus([path], str(world.root), cache_dir=cache)
    query = CorpusQuery(open_index(dataset, cache_dir=cache))
    rows = query.select(Filter(text="red", regions=(1, None)))
    assert rows.tolist() == scan(records, lambda r: "red" in r["question"] and r["region"])
    done = export_rows(dataset, rows, world.folder / "out.jsonl")
    exported = [json.loads(line) for line in done.path.read_text().splitlines()]
    assert exported == [records[i] for i in rows]


def test_other_processes_read_the_same_index(world):
    dataset = world.open(make_records(world, 50) * 90)  # more than two chunks
    found = []
    for workers in (0, 2):
        index = open_index(dataset, workers=workers, cache_dir=str(world.folder / f"c{workers}"))
        found.append((index.columns, CorpusQuery(index).select(Filter(text="red hat"))))
    (one, rows), (other, same) = found
    for name in ("score", "regions", "source", "length"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.sources == other.sources and rows.tolist() == same.tolist() and len(rows)


def test_the_index_is_made_once_and_anew_for_a_changed_file(world):
    cache, seen = str(world.folder / "cache"), []
    options = {"cache_dir": cache, "tick": seen.append}
    open_index(world.open(make_records(world, 5)), **options)
    open_index(world.open(make_records(world, 5), "other.jsonl"), **options)
    assert seen == [5, 5]
    dataset = open_corpus([str(world.folder / "other.jsonl")], str(world.root))
    assert len(open_index(dataset, **options)) == 5 and seen == [5, 5]
    open_index(world.open(make_records(world, 6), "other.jsonl"), **options)
    assert seen == [5, 5, 6]
    assert (
        subprocess.run(["ls", cache], capture_output=True, text=True).stdout.count("sqlite\n") == 3
    )


@settings(ODD, max_examples=15)
@given(data=st.data())
def test_odd_records_are_indexed_shown_or_refused(world, data):
    good = {**world.record(), "prediction": 0.5}
    records = [good, *(data.draw(spoiled(good)) for _ in range(12))]
    dataset = world.open([as_json(record) for record in records])
    index = open_index(dataset, cache_dir=str(world.folder / "cache"))
    assert len(index) == 13 and index.bad == sum(index.columns.reasons.values())
    viewer = RecordViewer(dataset)
    for row in range(13):
        try:
            shown = viewer.show(row)
            content_key(dataset.record(row))
            assert shown.parts
        except RecordError as error:
            assert row and error.reason
    items = read_items(dataset)
    assert items.all()[0].index == 0
    assert len(items.all()) + len(items.rejects) + items.duplicates == 13
