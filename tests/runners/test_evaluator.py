"""Every row scored once, whatever was finished before, and cached features score as images do."""

import json

import pytest
import torch

from lavis.common.errors import ConfigError
from lavis.common.storage.journal import Journal, JournalReader
from lavis.runners.evaluator import WatchedRows


class Interrupt(Exception):
    pass


def evaluate(tiny, folder, task=None, **run):
    runner = tiny.make_runner(folder, task, test_splits=["test"], **run)
    return runner, runner.evaluate()


def test_an_interrupted_evaluation_scores_only_what_is_missing(tiny, tmp_path):
    _, metrics = evaluate(tiny, tmp_path / "whole")
    assert metrics == {"test": {"agg_metrics": 0.0, "rows": 10, "report": True}}

    class Stopping(tiny.TinyTask):
        def predict(self, model, batch):
            if self.scored >= 6:
                raise Interrupt
            return super().predict(model, batch)

    first = Stopping()
    with pytest.raises(Interrupt):
        evaluate(tiny, tmp_path / "stopped", first)
    second = tiny.TinyTask()
    evaluate(tiny, tmp_path / "stopped", second)
    assert 0 < second.scored < 9  # nine rows are good
    name = "result/test_epochbest.json"
    assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    third = tiny.TinyTask()
    evaluate(tiny, tmp_path / "stopped", third)
    assert third.scored == 0
    again = tiny.TinyTask()
    evaluate(tiny, tmp_path / "stopped", again, resume="never")
    assert again.scored == 9


def test_loader_processes_give_the_same_file(tiny, tmp_path):
    for workers in (0, 2):
        evaluate(tiny, tmp_path / str(workers), num_workers=workers)
    files = [(tmp_path / w / "result/test_epochbest.json").read_bytes() for w in "02"]
    assert files[0] == files[1]


def test_other_weights_are_not_mixed_with_finished_scores(tiny, tmp_path):
    evaluate(tiny, tmp_path)
    runner = tiny.make_runner(tmp_path, test_splits=["test"])
    with torch.no_grad():
        runner.model.head.weight.add_(1)
    with pytest.raises(ConfigError, match=r"weights is .* there and"):
        runner.evaluate()


def test_weights_of_a_training_can_be_evaluated(tiny, tmp_path):
    trained = tiny.make_runner(tmp_path / "train", max_epoch=1)
    trained.train()
    runner, _ = evaluate(
        tiny, tmp_path / "out", resume_ckpt_path=str(tmp_path / "train" / "checkpoint_last")
    )
    assert torch.equal(runner.model.head.weight, trained.model.head.weight)


RESULT = "result/test_epochbest.json"


@pytest.mark.parametrize("rows", [1, 3, 10])  # fewer than processes; as many units; uneven shares
def test_three_processes_write_the_file_of_one(launch, tmp_path, rows):
    for size in (1, 3):
        for rank in launch(tmp_path / str(size), size, rows=rows):
            code, log = rank.wait()
            assert code == 0, log
    files = [(tmp_path / size / RESULT).read_bytes() for size in "13"]
    assert files[0] == files[1] and len(json.loads(files[0])) == rows


@pytest.mark.parametrize("left", [0, 1])
def test_three_processes_finish_what_one_has_left(launch, tmp_path, left):
    (rank,) = launch(tmp_path / "out", 1, rows=6)
    assert rank.wait()[0] == 0
    result = tmp_path / "out" / RESULT
    content = result.read_bytes()
    result.unlink()
    (segment,) = (tmp_path / "out/journal/test_epochbest").glob("*.jsonl")
    if left:
        segment.write_bytes(segment.read_bytes()[:-5])  # the last unit's commit is torn
    for rank in launch(tmp_path / "out", 3, rows=6):
        code, log = rank.wait()
        assert code == 0, log
    assert result.read_bytes() == content
    assert len(list(segment.parent.glob("*.jsonl"))) == 1 + left  # who had nothing wrote nothing


def test_a_refused_run_changes_no_file(tiny, tmp_path):
    evaluate(tiny, tmp_path)
    trained = tmp_path / "trained"
    tiny.make_runner(trained, max_epoch=1).train()

    def files(folder):
        return {
            path: (path.read_bytes(), path.stat().st_mtime_ns)
            for path in folder.rglob("*")
            if path.is_file() and path.name != "run.log"  # it says why the run was refused
        }

    before = files(tmp_path)
    runner = tiny.make_runner(tmp_path, test_splits=["test"], num_workers=1)
    with torch.no_grad():
        runner.model.head.weight.add_(1)
    with pytest.raises(ConfigError, match=r"weights is .* there and"):
        runner.evaluate()
    assert files(tmp_path) == before
    tree = {"model": {"arch": "another"}, "datasets": {}, "run": {}}
    with pytest.raises(ConfigError, match=r"model\.arch is \"tiny\" there"):
        tiny.make_runner(trained, tree=tree, max_epoch=1).train()
    assert files(tmp_path) == before
    evaluate(tiny, tmp_path, num_workers=1)  # accepted: now its config stands beside the scores
    assert files(tmp_path) != before


REJECTS = [{"reject": "missing image: a"}, {"reject": "missing image: b"}, {"reject": "no region"}]


@pytest.mark.parametrize("times", [1, 2])
def test_without_a_score_the_reasons_are_counted_once(tmp_path, times):
    with Journal(tmp_path, {}) as journal:
        journal.append(0, list(enumerate(REJECTS)))
    with JournalReader(tmp_path, {}) as reader:
        rows = WatchedRows(reader)
        for _ in range(times):
            assert [payload for _, payload in rows.iterate()] == REJECTS
        assert rows.nothing("test") == (
            "test: none of 3 records could be scored: missing image (2), no region (1); "
            "see rejects.jsonl"
        )


def test_one_score_is_enough(tmp_path):
    with Journal(tmp_path, {}) as journal:
        journal.append(0, list(enumerate([*REJECTS, {"score": 0.5}])))
    with JournalReader(tmp_path, {}) as reader:
        rows = WatchedRows(reader)
        assert len(list(rows.iterate_raw())) == 4
        assert rows.nothing("test") is None
