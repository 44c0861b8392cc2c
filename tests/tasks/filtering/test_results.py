"""A Parquet corpus with columns that JSON has no types for: scored, written, exported."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from label_items import read_items
from PIL import Image

from lavis.datasets.builders import build_dataset
from lavis.datasets.config import LckConfig
from lavis.datasets.corpus_export import CardFacts, export_corpus
from lavis.tasks.config import ClassificationConfig
from lavis.tasks.filtering.task import MultimodalClassificationTask as Task
from lavis.ui.browse.export import export_rows
from lavis.ui.label.judgements import Judgement
from lavis.ui.label.training_export import export_training

ROWS = 4
MOMENT = datetime.datetime(2024, 5, 1)


def strict(line: str) -> dict:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(line, parse_constant=refuse)


@pytest.fixture
def corpus(tmp_path):
    Image.new("RGB", (40, 30), (9, 99, 9)).save(tmp_path / "a.png")
    box = [Decimal("1.5"), Decimal("2"), Decimal("9.25"), Decimal("8")]
    references = [[{"name": "3", "boxes": [box], "mask": b"\x00" * 5000}]] * ROWS
    columns = {
        "image": ["a.png"] * ROWS,
        "index": [f"row-{n}" for n in range(ROWS)],
        "region": [[3]] * ROWS,
        "references": references,
        "question": ['["what", "is", [3], "?"]'] * ROWS,
        "answer": [json.dumps([f"{n}", "."]) for n in range(ROWS)],
        "rationale": ["[]", '["so"]', "[]", '["so"]'],
        "prediction": pa.array([Decimal("0.5")] * ROWS, pa.decimal128(10, 3)),
        "picture": [b"\xff\xd8" * 5000] * ROWS,
        "made": [MOMENT] * ROWS,
        "similarity": [0.5, float("nan"), float("inf"), None],
        "price": pa.array([Decimal("0.123456789012345678901")] * ROWS, pa.decimal128(30, 21)),
        "hash": pa.array([b"abcd"] * ROWS, pa.binary(4)),
    }
    pq.write_table(pa.table(columns), tmp_path / "corpus.parquet", row_group_size=3)
    config = LckConfig(
        build_info={
            "annotations": {"test": {"storage": str(tmp_path / "corpus.parquet")}},
            "images": {"storage": str(tmp_path)},
        },
        vis_processor={"eval": {"name": "blip_image_eval", "image_size": 16}},
        text_processor={"eval": {"name": "blip_unified_vqa"}},
    )
    return build_dataset("unified_vqa_binary", config, "test")


class AcceptsOdd:
    """P(accept) is 0.9 where the answer is odd, else 0.25."""

    def predict(self, samples):
        import torch

        odd = [int(text.split("answer: ")[1][0]) % 2 for text in samples["text_input"]]
        scores = torch.tensor([0.9 if one else 0.25 for one in odd])
        prediction = torch.stack([1 - scores, scores], dim=1)
        return {"prediction": prediction, "logits": prediction.log()}


def test_filtering_scores_and_writes_every_row(corpus, run, tmp_path):
    task = Task(ClassificationConfig(keep_above=[0.2, 0.5]))
    metrics = run(task, corpus, AcceptsOdd(), tmp_path / "out")
    assert (metrics["scored"], metrics["rejected"]) == (ROWS, 0)
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["empty_rationale"] == 2
    kept = tmp_path / "out" / "kept"
    lines = (kept / "test_epochbest_filtered_threshold_0.2.jsonl").read_text().splitlines()
    records = [strict(line) for line in lines]
    assert [record["index"] for record in records] == [f"row-{n}" for n in range(ROWS)]
    assert records[0] == {
        "image": "a.png",
        "index": "row-0",
        "region": [3],
        "references": [{"name": "3", "boxes": [[1.5, 2.0, 9.25, 8.0]]}],
        "question": ["what", "is", [3], "?"],
        "answer": ["0", "."],
        "rationale": [],
        "prediction": pytest.approx(0.25),
        "made": "2024-05-01T00:00:00",
        "similarity": 0.5,
        "price": "0.123456789012345678901",
        "hash": "YWJjZA==",
    }
    assert "similarity" not in records[1]
    odd = (kept / "test_epochbest_filtered_threshold_0.5.jsonl").read_text().splitlines()
    assert [strict(line)["index"] for line in odd] == ["row-1", "row-3"]
    assert pq.read_table(tmp_path / "out" / "result" / "test_epochbest.parquet").num_rows == ROWS
    journal = sum(p.stat().st_size for p in (tmp_path / "out" / "journal").rglob("*.jsonl"))
    assert journal < 2000  # no image in it


def test_exports_hold_the_same_records(corpus, tmp_path):
    exported = export_rows(corpus, range(ROWS), tmp_path / "rows.jsonl")
    assert (exported.written, exported.skipped) == (ROWS, 0)
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert [strict(line) for line in lines] == [corpus.record(n) for n in range(ROWS)]
    items = read_items(corpus).all()
    said = {item.key: Judgement(key=item.key, annotator="a", verdict="accept") for item in items}
    counts = export_training(corpus, items, {"a": said}, tmp_path / "training.jsonl")
    assert counts["written"] == ROWS
    first = strict((tmp_path / "training.jsonl").read_text().splitlines()[0])
    assert first["price"] == "0.123456789012345678901" and first["label"] == ["accept"]
    exported = export_corpus([corpus.store.files[0].path], tmp_path / "hf", CardFacts(name="hf"))
    assert exported == 0  # rejects
    (shard,) = (tmp_path / "hf" / "data").glob("*.parquet")
    row = pq.read_table(shard).to_pylist()[0]
    assert row["prediction"] == 0.5
    assert strict(row["extra"])["made"] == "2024-05-01T00:00:00"
