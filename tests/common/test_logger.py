"""Meters against hand-computed means, JSON lines, and the progress line."""

import io
import json
import logging

import pytest
import torch

from lavis.common import logger as log


def test_meters_average_each_name_over_its_own_steps():
    meters = log.Meters()
    meters.update({"loss": torch.tensor(2.0), "loss_qa": torch.tensor([1.0])})
    meters.update({"loss": torch.tensor(4.0, requires_grad=True)})
    first = meters.take()
    assert first == {"loss": (6.0, 2), "loss_qa": (1.0, 1)}
    assert meters.take() == {}
    merged = log.merge_totals([first, {"loss": (0.0, 1)}])
    assert log.means(merged) == {"loss": 2.0, "loss_qa": 1.0}


def test_meters_do_not_change_the_value_they_saw():
    value = torch.tensor(1.0)
    meters = log.Meters()
    meters.update({"loss": value})
    meters.update({"loss": torch.tensor(2.0)})
    assert value.item() == 1.0


def test_run_log_writes_numbers_not_texts(tmp_path):
    run_log = log.RunLog(tmp_path)
    run_log.config({"run": {"seed": 1}})
    run_log.epoch("train", {"lr": 1e-5, "loss": torch.tensor(0.5)})
    run_log.metrics("train", {"iteration": 3, "loss": float("nan")})
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert lines[:3] == ["{", '    "run": {', '        "seed": 1']
    assert json.loads(lines[-1]) == {"train_lr": 1e-5, "train_loss": 0.5}
    step = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert step["iteration"] == 3 and step["loss"] is None and step["time"] > 0


def test_other_ranks_write_nothing(tmp_path):
    log.RunLog(None).epoch("train", {"lr": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_only_this_start_in_its_speed(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(log.time, "monotonic", lambda: now[0])
    progress = log.Progress(100, "score", unit="records", done=50, stream=io.StringIO())
    now[0] += 5
    progress.add(10)
    assert progress.line() == "score: 60/100 records (60 %), 2 records/s, 0:20 left"


@pytest.mark.parametrize(
    "seconds, text", [(5, "0:05"), (125, "2:05"), (3723, "1:02:03"), (float("inf"), "?")]
)
def test_durations(seconds, text):
    assert log.format_seconds(seconds) == text


def test_other_ranks_log_warnings_only(tmp_path, capsys):
    log.setup_logging(1)
    logging.getLogger("lavis.x").info("quiet")
    logging.getLogger("lavis.x").warning("loud")
    err = capsys.readouterr().err
    assert "quiet" not in err and "WARNING [rank 1] loud" in err
    log.setup_logging(0, file=tmp_path / "run.log")
    logging.getLogger("lavis.x").info("told")
    assert "told" in (tmp_path / "run.log").read_text()
    logging.getLogger("lavis").handlers.clear()
    logging.getLogger("lavis").setLevel(logging.NOTSET)
