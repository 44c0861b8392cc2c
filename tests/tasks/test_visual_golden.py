"""Answers, accuracies and losses of the published evaluation scripts on a tiny GPT-2.

Values: the published scripts' own, float32; tolerance 1e-5 on probabilities, answers equal.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from visual_run import (
    SET,
    GivenPictures,
    answer,
    make_config,
    make_dataset,
    make_model,
    make_task,
)

GOLDEN = json.loads((SET / "imagenetvc.json").read_text())
FORMATS = json.loads((SET / "commonsense.json").read_text())["formats"]
SUBSETS = ("color", "shape", "material", "component", "others", "others_extra")
MODES = {
    "fused_reference": {"weight_multiplier": 2.0},
    "fused_paper": {"weight_multiplier": 2.0, "mix": "probs", "clamp_weights": True},
}
NAMES = {"hs": "hellaswag"}


@pytest.fixture(scope="module")
def pool():
    return load_file(SET / "images.safetensors")["pool.pixel_values"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    made = {}
    for mode, options in {**MODES, "plain": {}}.items():
        made[mode] = make_model(tmp_path_factory.mktemp(mode), **options)
    return made


def write_subset(folder: Path, subset: str) -> dict:
    """Write a subset as published, and return what its questions were given."""
    part = GOLDEN["subsets"][subset]
    with open(folder / part["csv"], "w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["category", "question", "answer"])
        lines.writerows(["", q, a] for q, a in zip(part["question"], part["answer"], strict=True))
    given = zip(part["question"], part["image_index"], part["clip_scores"], strict=True)
    return {question: (places, scores) for question, places, scores in given}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("subset", SUBSETS)
def test_next_words_equal_the_published_ones(subset, mode, tmp_path, monkeypatch, pool, models):
    chosen = write_subset(tmp_path, subset)
    if len(chosen) < len(GOLDEN["subsets"][subset]["question"]):
        pytest.skip("one question with two sets of pictures")
    name = GOLDEN["subsets"][subset]["csv"].removesuffix(".csv")
    dataset = make_dataset("imagenetvc", tmp_path, subsets=[name])
    config = make_config(3, columns=["text", "pictures"])
    task = make_task(config, monkeypatch, GivenPictures(pool, chosen, "question"))
    rows = answer(task, models[mode], dataset)
    for column, expected in (("text", "text"), ("pictures", mode)):
        for prompt, golden in enumerate(GOLDEN["results"][subset][expected]["per_prompt"]):
            said = [row["predicted"][column]["first_token"][prompt] for row in rows]
            assert said == [word.lower() for word in golden["predicted"]]
            marks = [row["marks"][column]["first_token"][prompt] for row in rows]
            assert marks == golden["correct"]
            values = [row["values"][column]["first_token"][prompt] for row in rows]
            for (top, lead), p_top, margin in zip(
                values, golden["p_top"], golden["margin"], strict=True
            ):
                assert math.exp(top) == pytest.approx(p_top, abs=1e-5)
                assert math.exp(top) - math.exp(top - lead) == pytest.approx(margin, abs=2e-5)


@pytest.mark.parametrize("kind", FORMATS)
def test_multiple_choice_equals_the_published_one(kind, tmp_path, monkeypatch, pool, models):
    items = FORMATS[kind]["items"]
    name = NAMES.get(kind, kind)
    lines = "".join(json.dumps(item["item"]) + "\n" for item in items)
    files = {"arc": ["ARC-Easy-Test.jsonl", "ARC-Challenge-Test.jsonl"]}
    for file in files.get(kind, [f"{name}.jsonl" if kind != "obqa" else "obqa.jsonl"]):
        (tmp_path / file).write_text(lines)
    options = {"subsets": ["arc_easy"]} if kind == "arc" else {}
    dataset = make_dataset(name, tmp_path, **options)
    chosen = {}
    for item in items:
        given = zip(item["queries"], item["image_index"], item["clip_scores"], strict=True)
        chosen |= {query: (places, scores) for query, places, scores in given}
    config = make_config(3, columns=["text", "pictures"], pictures_per="prompt")
    task = make_task(config, monkeypatch, GivenPictures(pool, chosen, "prompt"))
    rows = answer(task, models["plain"], dataset)
    assert [dataset.question(n).prompts for n in range(len(items))] == [
        tuple(item["queries"]) for item in items
    ]
    assert [row["gold"] for row in rows] == [item["label_index"] for item in items]
    seen: dict[str, int] = {}
    for item in items:
        for query in item["queries"]:
            seen[query] = seen.get(query, 0) + 1
    for row, item in zip(rows, items, strict=True):
        for column, mode in (("text", "text"), ("pictures", "fused_reference")):
            losses = [math.exp(-value) for value in row["values"][column]["sequence_loss"]]
            once = [seen[q] == 1 or mode == "text" for q in item["queries"]]
            for found, expected, only in zip(losses, item["exp_loss"][mode], once, strict=True):
                if only:
                    assert found == pytest.approx(expected, rel=1e-4)
            if all(once):
                assert row["predicted"][column]["sequence_loss"] == [item["predicted"][mode]]


def test_yes_no_questions_equal_the_published_ones(tmp_path, monkeypatch, pool, models):
    golden = json.loads((SET / "boolq.json").read_text())
    lines = [json.dumps(item["item"]) for item in golden["items"]]
    (tmp_path / "dev.jsonl").write_text("\n".join(lines) + "\n")
    dataset = make_dataset("boolq", tmp_path)
    chosen = {i["prompt"]: (i["image_index"], i["clip_scores"]) for i in golden["items"]}
    config = make_config(3, columns=["text", "pictures"])
    task = make_task(config, monkeypatch, GivenPictures(pool, chosen, "question"))
    tokens = task.texts.candidates(("Yes", "No"), "given")
    assert tokens.first == (golden["yes_id"], golden["no_id"])
    rows = answer(task, models["plain"], dataset)
    for row, item in zip(rows, golden["items"], strict=True):
        assert dataset.question(rows.index(row)).prompts == (item["prompt"],)
        for column, mode in (("text", "text"), ("pictures", "fused_with_scores")):
            assert row["predicted"][column]["first_token"] == [item[mode]["prediction"]]
            _, lead = row["values"][column]["first_token"][0]
            p_yes, p_no = item[mode]["p_yes"][0], item[mode]["p_no"][0]
            assert lead == pytest.approx(abs(math.log(p_yes / p_no)), abs=1e-4)


def test_examples_in_front_of_prompts_equal_the_published_ones():
    data = GOLDEN["icl"]
    assert set(data) == {"color", "others_yes"}
    from lavis.datasets.benchmarks.imagenetvc import DEMONSTRATIONS

    for shown in data.values():
        pairs = [part.strip() for part in shown[1].split(". ") if part.strip()]
        parsed = [pair.rsplit(" Answer: ", 1) for pair in pairs]
        for template, text in zip(DEMONSTRATIONS, shown, strict=True):
            assert "".join(template.format(q=q, a=a) for q, a in parsed) == text


def test_candidates_become_the_published_tokens(monkeypatch):
    task = make_task(make_config(), monkeypatch)
    from lavis.datasets.benchmarks.imagenetvc import CANDIDATES

    for name, golden in GOLDEN["candidates"].items():
        tokens = task.texts.candidates(CANDIDATES[name], "both")
        assert list(CANDIDATES[name]) == golden["strings"]
        assert list(tokens.first) == golden["token_ids"]
        assert list(tokens.decoded) == golden["decoded"]
