"""Trackers get numbers under a name that tells their kind, and a config as flat text."""

from types import SimpleNamespace

from lavis.runners.tracking import numbers, start_trackers, track


class Recorder:
    """Stands in for accelerate."""

    def __init__(self):
        self.trackers, self.sent, self.started = [SimpleNamespace()], [], []

    def log(self, values, step):
        self.sent.append((values, step))

    def init_trackers(self, project, config, init_kwargs):
        self.started.append((project, config, init_kwargs))


def test_only_numbers_are_sent_and_truth_is_none():
    accelerator = Recorder()
    track(accelerator, {"loss": 2, "done": True, "name": "x"}, kind="train", step=7)
    track(accelerator, {"name": "x"}, kind="train", step=8)
    assert accelerator.sent == [({"train/loss": 2.0}, 7)]
    assert numbers({"a": 1, "b": 0.5, "c": False, "d": None}) == {"a": 1, "b": 0.5}
    accelerator.trackers = []
    track(accelerator, {"loss": 2}, kind="train", step=9)
    assert len(accelerator.sent) == 1


def test_a_config_is_flat(tmp_path):
    tree = {"run": {"lr": 0.1, "splits": ["a"], "amp": True}, "seed": None}
    accelerator = Recorder()
    start_trackers(accelerator, ["tensorboard"], folder=tmp_path, run_id="r1", tree=tree)
    [(project, config, settings)] = accelerator.started
    assert config == {"run.lr": 0.1, "run.splits": "['a']", "run.amp": True, "seed": "None"}
    assert (project, settings) == ("lavis", {})


def test_wandb_is_offline_without_a_key(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    accelerator, options = Recorder(), {"folder": tmp_path, "run_id": "r1", "tree": {}}
    start_trackers(accelerator, [], **options)
    start_trackers(accelerator, ["wandb"], **options)
    monkeypatch.setenv("WANDB_MODE", "online")
    start_trackers(accelerator, ["wandb"], **options)
    settings = [started[2]["wandb"] for started in accelerator.started]
    assert [one.get("mode") for one in settings] == ["offline", None]
    assert settings[0]["name"] == f"{tmp_path.name}-r1"
