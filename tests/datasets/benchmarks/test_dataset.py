"""Benchmarks as data sets: files, groups, units, and what is wrong with a config."""

from __future__ import annotations

import pytest
from benchmark_opening import make, questions, write_imagenetvc, write_lines

from lavis.common.errors import ConfigError, DataError, RecordError
from lavis.datasets.benchmarks.config import BenchmarkConfig
from lavis.datasets.benchmarks.dataset import BenchmarkDataset
from lavis.datasets.config import BuildInfo, SplitSource

PIQA = {"goal": "Warm soup.", "sol1": "Use a flask.", "sol2": "Use a plate."}


def test_files_may_be_named_and_bad_ones_are_told(tmp_path):
    write_lines(tmp_path / "mine.jsonl", [{**PIQA, "label": 0}])
    with open(tmp_path / "mine.jsonl", "a") as file:
        file.write("{broken\n")
    dataset = make("piqa", tmp_path, storage=["mine.jsonl"])
    assert dataset.question(0).gold == 0
    with pytest.raises(RecordError, match="malformed line"):
        dataset.question(1)
    assert dataset.source(1) == {"file": str(tmp_path / "mine.jsonl"), "line": 2}
    with pytest.raises(DataError, match="no file named dev"):
        make("boolq", tmp_path)
    with pytest.raises(ConfigError, match="2 files for 1 groups"):
        make("piqa", tmp_path, storage=["mine.jsonl", "mine.jsonl"])


def test_configs_name_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="unknown benchmark 'pica'; did you mean 'piqa'"):
        make("pica", tmp_path)
    with pytest.raises(ValueError, match="subsets: 'colour'; did you mean 'color'"):
        make("imagenetvc", tmp_path, subsets=["colour"])
    with pytest.raises(ValueError, match="data_dir: no such file or folder"):
        make("piqa", tmp_path / "absent")
    with pytest.raises(ValueError, match="only imagenetvc has demonstrations"):
        make("piqa", tmp_path, use_icl=True)
    build_info = BuildInfo(annotations={"test": SplitSource(storage=[])})
    with pytest.raises(ValueError, match="data_dir: missing; give the folder that holds color"):
        BenchmarkDataset(BenchmarkConfig(benchmark="imagenetvc", build_info=build_info), "test")


def test_the_first_questions_of_each_group(tmp_path):
    write_imagenetvc(tmp_path)
    found = [q.group for q in questions(make("imagenetvc", tmp_path, max_questions=1))]
    assert found == ["color", "shape", "material", "component", "others"]


def test_questions_about_one_thing_share_a_unit(tmp_path):
    lines = "category,question,answer\na,Is it red?,yes\nb,Is it old?,yes\na,Is it red?,no\n"
    (tmp_path / "others.csv").write_text(lines)
    dataset = make("imagenetvc", tmp_path, subsets=["others"])
    keys = [dataset.row(n).image_key for n in range(3)]
    assert keys[0] == keys[2] != keys[1]
    assert dataset.row(0).all_texts == dataset.question(0).prompts
    before = dataset.fingerprint()
    (tmp_path / "others.csv").write_text(lines.replace("old", "new"))
    assert make("imagenetvc", tmp_path, subsets=["others"]).fingerprint() != before


def test_the_digest_of_questions_stays_that_of_begun_journals(tmp_path):
    (tmp_path / "others.csv").write_text(
        "category,question,answer\na,Is it red?,yes\nb,Is it old?,yes\n,,\n"
    )
    dataset = make("imagenetvc", tmp_path, subsets=["others"])
    assert dataset.fingerprint()["content"] == "9564ec5ab97b56dd1d5e9680522ef48e"
