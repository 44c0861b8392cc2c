"""Beginnings that run once and evenly cut reads give what plain rows give."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from question_run import PresetImages, answer, make_config, make_dataset, make_model, make_task

from lavis.tasks.questions import requests as requests
from lavis.tasks.questions.prefixes import shared_prefixes, targets_per_row

TOKENS = st.lists(st.integers(0, 2), min_size=2, max_size=12).map(tuple)


@settings(max_examples=200, deadline=None)
@given(st.lists(TOKENS, min_size=1, max_size=12, unique=True))
def test_a_beginning_is_shared_by_its_texts_and_followed_by_a_token(texts):
    found = shared_prefixes(texts)
    if found is None:
        return
    for text, of in zip(texts, found.of, strict=True):
        length = found.lengths[of]
        assert 0 < length < len(text)
        assert text[:length] == texts[found.first[of]][:length]
    rest = max(len(t) - found.lengths[n] for t, n in zip(texts, found.of, strict=True))
    plain = len(texts) * max(map(len, texts))
    assert len(found.lengths) * max(found.lengths) + len(texts) * rest < plain


def test_options_of_one_context_share_it():
    context = tuple(range(40))
    texts = [(*context, 90 + n) for n in range(4)] + [(99, *context, 90)]
    found = shared_prefixes(texts)
    assert found.lengths == (40, 41) and found.of == (0, 0, 0, 0, 1)
    assert shared_prefixes([(1, 2), (3, 4)]) is None  # nothing in common
    assert shared_prefixes([(1,), (1, 2)]) is None  # nothing would follow


def test_reads_are_cut_where_padding_costs_more():
    assert targets_per_row([30, 30, 29]) == 30
    assert targets_per_row([100, 10, 10, 10]) == 10
    assert targets_per_row([0, 0]) == 1


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tower")
    return {mix: make_model(folder, mix=mix, clamp_weights=mix == "probs") for mix in MIXES}


MIXES = ("logits", "probs")
RECORDS = {
    "piqa": (
        "valid.jsonl",
        [{"goal": f"Warm the soup {n}.", "sol1": "Use a flask.", "sol2": "Use a", "label": 0}
         for n in range(3)],
    ),
    "hellaswag": (
        "hellaswag_val.jsonl",
        [{"ctx": "A man sits on a roof. He", "endings": ["starts pulling up roofing.", "sings.",
          "is ripping level tiles off.", "starts"], "label": 3, "ind": 4}],
    ),
    "imagenetvc": (
        "others.csv",
        "category,question,answer\nx,How many legs has a dog?,4\ny,Where is a boat?,ocean\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("benchmark", RECORDS)
@pytest.mark.parametrize("per", ["question", "prompt"])
def test_answers_are_those_of_plain_rows(models, benchmark, mix, per, tmp_path, monkeypatch):
    name, records = RECORDS[benchmark]
    lines = records if isinstance(records, str) else "".join(json.dumps(r) + "\n" for r in records)
    (tmp_path / name).write_text(lines)
    options = {"subsets": ["others"]} if benchmark == "imagenetvc" else {}
    dataset = make_dataset(benchmark, tmp_path, **options)
    pool = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    chosen = {}
    for question in map(dataset.question, range(len(dataset))):
        chosen[question.image_text] = ([0, 1, 2], [0.3, 0.2, 0.1])
        for n, text in enumerate(question.image_texts):
            chosen[text] = ([n % 4, (n + 1) % 4, 3], [0.3, 0.2, 0.4])
    columns = ["text", "single", "images", "shuffled"]
    config = make_config(3, images_per=per, columns=columns)

    def ask():
        task = make_task(config, monkeypatch, PresetImages(pool, chosen, per))
        return answer(task, models[mix], dataset, batch_size=64)

    shared = ask()
    monkeypatch.setattr(requests, "shared_prefixes", lambda texts: None)
    monkeypatch.setattr(requests, "_context_once", lambda options: options)
    monkeypatch.setattr(requests, "split_targets", list)
    monkeypatch.setattr("lavis.tasks.questions.task.split_targets", list)
    plain = ask()
    for one, other in zip(shared, plain, strict=True):
        assert one["predicted"] == other["predicted"]
        for column in config.shown:
            for rule, values in one["values"][column].items():
                found, expected = map(torch.tensor, (values, other["values"][column][rule]))
                torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
