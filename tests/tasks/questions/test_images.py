"""Questions some of whose images a safety checker withholds; kept features in half precision."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from question_run import World, answer, make_config, make_dataset, make_model

from lavis.common.errors import RecordError
from lavis.common.storage.journal import Journal, JournalReader
from lavis.tasks.questions.task import VisualQuestionsTask

COLUMNS = ["text", "single", "images"]


class Pipeline:
    """Draws noise of each prompt's own seed; blanks those whose (prompt, number) are listed."""

    blanked: frozenset = frozenset()

    @classmethod
    def from_pretrained(cls, name, **options):
        return cls()

    def set_progress_bar_config(self, disable): ...

    def to(self, device):
        return self

    def __call__(self, prompt, generator, height, width, **options):
        noise = [torch.randint(0, 256, (height, width, 3), generator=g) for g in generator]
        flags = [int(n.sum()) in self.blanked for n in noise]
        images = [
            Image.fromarray((n * (not flag)).byte().numpy())
            for n, flag in zip(noise, flags, strict=True)
        ]
        return types.SimpleNamespace(images=images, nsfw_content_detected=flags)


@pytest.fixture
def run(tmp_path, monkeypatch):
    module = types.ModuleType("diffusers")
    module.AutoPipelineForText2Image = Pipeline
    monkeypatch.setitem(sys.modules, "diffusers", module)
    monkeypatch.setattr(Pipeline, "blanked", frozenset())
    (tmp_path / "color.csv").write_text("category,question,answer\nx,Red?,red\nx,Blue?,blue\n")
    dataset = make_dataset("imagenetvc", tmp_path, subsets=["color"])
    model = make_model(tmp_path, weights="mean", mix="probs", clamp_weights=True)

    def make(cache, count, **options):
        node = {
            "generator": "diffusion",
            "options": {"image_size": 32, "device": "cpu"},
            "prompt_rule": "verbatim",
            "scorer": None,
            "cache_dir": str(tmp_path / cache),
        }
        return VisualQuestionsTask(make_config(count, node, columns=COLUMNS, **options))

    return types.SimpleNamespace(dataset=dataset, model=model, make=make, folder=tmp_path)


def blank(run, *numbers):
    """Have the checker blank the first question's images of these numbers."""
    task = run.make("probe", 3)
    task.prepare(run.model, run.dataset, World())
    (own,) = task.images.sets(run.dataset.question(0))
    store = task.images.store
    sums = [int(np.asarray(store.image(store.key(*r)), dtype=int).sum()) for r in own]
    Pipeline.blanked = frozenset(sums[number] for number in numbers)
    return own


def values(row, column):
    return row["values"][column]["first_token"]


@pytest.mark.parametrize("keep", [True, False])
def test_a_question_is_asked_with_the_images_that_are_left(run, keep, caplog):
    own = blank(run, 2)
    two = answer(run.make("two", 2, keep_features=keep), run.model, run.dataset)
    with caplog.at_level("WARNING"):
        task = run.make("three", 3, keep_features=keep)
        rows = answer(task, run.model, run.dataset)
    assert "1 of 6 images are withheld" in caplog.text
    (shown,) = rows[0]["pictures"]
    assert [p["index"] for p in shown] == [own[0].index, own[1].index]
    # as if two had been asked for: each of them has half of the say, not a third
    assert [p["weight"] for p in shown] == pytest.approx([0.5, 0.5])
    for mine, other in zip(values(rows[0], "pictures"), values(two[0], "pictures"), strict=True):
        assert mine == pytest.approx(other, abs=1e-5)
    assert rows[0]["withheld"] == 1 and "withheld" not in rows[1]
    assert [p["weight"] for p in rows[1]["pictures"][0]] == pytest.approx([1 / 3] * 3)


def test_without_its_first_image_the_next_stands_alone(run):
    blank(run, 0)
    rows = answer(run.make("a", 3), run.model, run.dataset)
    assert len(rows[0]["pictures"][0]) == 2
    assert values(rows[0], "single") != values(rows[0], "text")


def test_a_question_without_any_image_left_is_answered_from_the_text(run):
    blank(run, 0, 1, 2)
    task = run.make("a", 3)
    rows = answer(task, run.model, run.dataset)
    assert rows[0]["pictures"] == [] and rows[0]["withheld"] == 3
    assert values(rows[0], "pictures") == values(rows[0], "text") == values(rows[0], "single")
    assert len(rows[1]["pictures"][0]) == 3
    journal = Journal(run.folder / "journal", {}, 0)
    journal.append(0, list(enumerate(rows)))
    journal.close()
    with JournalReader(run.folder / "journal", {}) as reader:
        task.finish(reader, run.dataset, run.folder, "test_epochbest")
    results = json.loads((run.folder / "results.json").read_text())
    assert (results["withheld_pictures"], results["with_withheld_pictures"]) == (3, 1)
    page = " ".join((run.folder / "report.html").read_text().split())
    assert "withheld 3 images of 1 questions" in page


def test_kept_features_are_those_of_the_autocast_they_are_read_in(run):
    """In half precision and in full, with kept features and without: equal, and kept apart."""
    found = {}
    for keep in (True, False):
        for dtype in (torch.bfloat16, None):
            task = run.make("shared", 2, keep_features=keep)
            with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
                rows = answer(task, run.model, run.dataset)
            found[keep, dtype] = np.array([values(row, "pictures") for row in rows])
    for dtype in (torch.bfloat16, None):
        np.testing.assert_allclose(found[True, dtype], found[False, dtype], atol=1e-4)
    half, full = found[False, torch.bfloat16], found[False, None]
    assert np.abs(half - full).max() > 1e-3, "the two precisions differ at all"


def test_whether_a_feature_is_there_is_known_without_reading_it(run, monkeypatch):
    answer(run.make("a", 2), run.model, run.dataset)
    task = run.make("a", 2)
    monkeypatch.setattr(task.images.store.cache, "get", lambda key: pytest.fail("read"))
    monkeypatch.setattr(run.model, "encode_frozen", lambda images: pytest.fail("encoded"))
    task.prepare(run.model, run.dataset, World())


def test_a_damaged_feature_is_told_and_made_anew_at_the_next_start(run):
    rows = answer(run.make("a", 2), run.model, run.dataset)
    task = run.make("a", 2)
    task.prepare(run.model, run.dataset, World())
    ((first, *_),) = task.images.sets(run.dataset.question(0))
    store = task.images.store
    path = store.cache.path(store._features_key(store.key(*first), task.images._tower))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RecordError, match=r"missing features of an image: Red.*start again"):
        task.images.load([first], run.dataset)
    again = answer(run.make("a", 2), run.model, run.dataset)
    assert len(again) == len(rows)
    for one, other in zip(again, rows, strict=True):  # encoded in a batch of another size
        np.testing.assert_allclose(values(one, "pictures"), values(other, "pictures"), atol=1e-4)
