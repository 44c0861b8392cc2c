"""Our task files for lm-evaluation-harness: each loads, and its rows are those of our readers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("lm_eval")

from lm_eval.tasks import TaskManager

from lavis.common.errors import ConfigError
from lavis.integrations.harness_tasks import questions, score_reading

TASKS = Path(__file__).resolve().parents[2] / "lavis" / "configs" / "lm_eval"
NAMES = sorted(path.stem for path in TASKS.rglob("*.yaml"))
ANSWERS = {
    "color": "white",
    "shape": "round",
    "material": "metal",
    "component": "yes",
    "others": "no",
}
TURN = {"text": "Ada", "answer_start": 0}


@pytest.fixture
def data(tmp_path):
    (tmp_path / "imagenetvc").mkdir()
    for name, answer in ANSWERS.items():
        lines = f"category,question,answer\nx,What color is milk?,{answer}\n"
        (tmp_path / "imagenetvc" / f"{name}.csv").write_text(lines)
    valm = tmp_path / "valm"
    valm.mkdir()
    (valm / "memory_color_data.csv").write_text(
        "Descriptor,Item,Shape\nthe,milk,white\na,tench,green\n"
    )
    (valm / "color-concrete-objects.csv").write_text("object,color\nmilk,white\ntench,green\n")
    (valm / "shape.csv").write_text("Descriptor,Item,Shape\na,ball,round\n")
    (valm / "sizePairsFull.txt").write_text("a horse a mouse\n")
    vicomte = tmp_path / "vicomte"
    vicomte.mkdir()
    for name in ("color", "shape", "larger", "smaller"):
        (vicomte / f"{name}.jsonl").write_text(json.dumps({"sub": "milk", "obj": "white"}) + "\n")
    turns = [
        {"id": f"q{n}", "question": "Who?", "orig_answer": TURN, "answers": [TURN]} for n in (0, 1)
    ]
    paragraph = {"id": "d", "context": "Ada wrote. CANNOTANSWER", "qas": turns}
    article = {
        "title": "Ada",
        "section_title": "Life",
        "background": "A life.",
        "paragraphs": [paragraph],
    }
    (tmp_path / "quac").mkdir()
    (tmp_path / "quac" / "val_v0.2.json").write_text(json.dumps({"data": [article]}))
    return tmp_path


def folder_of(name, data):
    for part in ("imagenetvc", "vicomte", "quac"):
        if name.startswith(part):
            return data / part
    return data / "valm"


@pytest.mark.parametrize("name", NAMES)
def test_every_task_file_loads(name, data):
    metadata = {"data_dir": str(folder_of(name, data)), "llm": "an argument of the model"}
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=metadata)
    loaded = manager.load([name])["tasks"]
    assert loaded
    for task in loaded.values():
        doc = next(iter(task.test_docs()))
        assert task.doc_to_text(doc)
        if "choices" in doc:
            said = {task.doc_to_choice(doc)[gold].lower() for gold in doc["gold"]}
            assert len(said) == 1 and said <= set(ANSWERS.values())


def test_candidates_count_in_either_case(data):
    rows = questions("imagenetvc", str(data / "imagenetvc"), "color", prompt=1)["test"]
    (row,) = rows
    assert row["context"] == "What color is milk? Answer:"
    assert [row["choices"][gold] for gold in row["gold"]] == ["white", "White"]
    every = questions("imagenetvc", str(data / "imagenetvc"), "color")["test"]
    assert [row["prompt"] for row in every] == [0, 1, 2, 3, 4]


def test_written_answers_are_scored_by_their_first_line():
    doc = {"scorer": "released", "answers": ["Ada Lovelace", "Ada"]}
    assert score_reading(doc, ["\n The Ada\n\nQ: no"]) == {"exact_match": 1.0, "f1": 1.0}


def test_a_folder_is_needed(data):
    with pytest.raises(ConfigError, match="--metadata data_dir=FOLDER"):
        questions("imagenetvc")
    with pytest.raises(ConfigError, match="of its own"):
        (data / "piqa.jsonl").write_text('{"goal": "a", "sol1": "b", "sol2": "c", "label": 0}\n')
        questions("piqa", str(data))
