"""An exported corpus: every record, in shards that pyarrow, datasets and our own readers load."""

import json

import pyarrow.parquet as pq
import pytest
import yaml

from lavis.common.errors import ConfigError, NothingDoneError
from lavis.datasets.corpus_export import CardFacts, export_corpus, size_category, to_row
from lavis.datasets.files.formats import open_records


def export(corpus, output, *, split=None, shard_rows=100_000, **facts):
    facts = CardFacts(name=output.name, **facts)
    return export_corpus([str(corpus)], output, facts, split=split, shard_rows=shard_rows)


def record(number, **changes):
    made = {
        "image": f"{number // 2}.jpg",
        "source": "chatgpt_v4" if number % 3 else "chatgpt_v3",
        "split": "val" if number == 6 else "train",
        "index": f"r-{number}",
        "region": [0, 2] if number % 2 else [],
        "region_all": [0, 1, 2],
        "references": [{"name": "0", "boxes": [[1, 2, 3.5, 4]], "obj_guess": "dog"}],
        "question": ["What", "is", [0, 2] if number % 2 else "it", "?"],
        "answer": ["A", "dog"],
        "rationale": ["Ears"],
        "prediction": 0.5 + number / 100,
        "note": {"n": number},
    }
    return {**made, **changes}


def test_rows_shards_counts_and_card(tmp_path, capsys):
    records = [record(n) for n in range(7)]
    lines = [json.dumps(r) for r in records]
    lines.insert(3, "{broken")
    lines.append(json.dumps({**record(8), "answer": "a dog"}))
    corpus, folder = tmp_path / "lck.jsonl", tmp_path / "out"
    corpus.write_text("\n".join(lines) + "\n")
    facts = {"license": "cc-by-4.0", "critic": "ft v2", "threshold": 0.5}
    for _ in range(2):  # again into the same folder: the same files
        assert export(corpus, folder, shard_rows=4, **facts) == 2
    assert "7 rows of 4 images, 2 records rejected" in capsys.readouterr().out
    names = sorted(path.name for path in (folder / "data").iterdir())
    assert names == [
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
        "val-00000-of-00001.parquet",
    ]
    table = pq.read_table(folder / "data" / names[0])
    assert table.num_rows == 4
    first = table.slice(1, 1).to_pylist()[0]
    assert first["question_text"] == "What is [0] , [2] ?" and first["region"] == [0, 2]
    assert first["prediction"] == pytest.approx(0.51)
    assert json.loads(first["extra"]) == {"note": {"n": 1}}

    store = open_records([str(folder / "data" / name) for name in names])
    read = [store.read(i) for i in range(7)]
    for ours, made in zip(read, records, strict=True):
        for key in ("image", "index", "region", "region_all", "references", "question", "answer"):
            assert ours.get(key) == made[key], key

    rejects = [json.loads(line) for line in (folder / "rejects.jsonl").read_text().splitlines()]
    assert [reject["line"] for reject in rejects] == [4, 9]
    assert "wrong type: answer" in rejects[1]["reason"]

    text = (folder / "README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert head["license"] == "cc-by-4.0" and head["size_categories"] == ["n<1K"]
    assert [part["split"] for part in head["configs"][0]["data_files"]] == ["train", "val"]
    assert "| chatgpt_v4 | 4 | 57.1 % |" in text and "| chatgpt_v3 | 3 | 42.9 % |" in text
    assert "| ids | 3 | 42.9 % |" in text and "| description | 4 |" in text
    assert "| 0 | 4 |" in text and "| 2 | 3 |" in text
    assert "kept by a critic (ft v2) at 0.5" in text


def test_the_folder_is_a_data_set_of_the_hubs_library(tmp_path):
    datasets = pytest.importorskip("datasets")
    corpus = tmp_path / "lck.jsonl"
    corpus.write_text("".join(json.dumps(record(n)) + "\n" for n in range(7)))
    assert export(corpus, tmp_path / "out") == 0
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(part) for name, part in loaded.items()} == {"train": 6, "val": 1}
    assert loaded["train"][1]["answer_text"] == "A dog"


@pytest.mark.parametrize(
    "split", ["../../escaped", "/tmp/escaped", "a/b", "..", ".hidden", "a\\b", "a\n", " ", "a..b"]
)
def test_a_split_never_becomes_a_path(tmp_path, split):
    corpus, folder = tmp_path / "lck.jsonl", tmp_path / "in" / "out"
    corpus.write_text(
        "".join(json.dumps(record(n, split=s)) + "\n" for n, s in [(0, split), (1, "val")])
    )
    assert export(corpus, folder) == 1
    assert [path.name for path in (folder / "data").iterdir()] == ["val-00000-of-00001.parquet"]
    reject = json.loads((folder / "rejects.jsonl").read_text())
    assert reject["row"] == 0 and reject["reason"].startswith(f"bad split: {split!r}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "lck.jsonl"]

    with pytest.raises(ConfigError, match=r"^--split: "):  # the flag is at fault, not each record
        export(corpus, tmp_path / "flag", split=split)
    assert not (tmp_path / "flag").exists()


@pytest.mark.parametrize("split", ["train", "val.unseen", "test-dev_2015"])
def test_names_that_are_splits(split):
    assert to_row(record(0, split=split), None)["split"] == split


def test_nothing_readable_is_an_error(tmp_path):
    (tmp_path / "lck.jsonl").write_text("{}\n")
    with pytest.raises(NothingDoneError, match="none of 1 records can be exported"):
        export(tmp_path / "lck.jsonl", tmp_path / "out")


@pytest.mark.parametrize(
    ("rows", "name"),
    [(999, "n<1K"), (1000, "1K<n<10K"), (10**6, "1M<n<10M"), (10**9, "n>100M")],
)
def test_size_categories(rows, name):
    assert size_category(rows) == name
