"""A model, data set and task small enough to train in a second, and `main`, which is one rank."""

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import torch
from plain_data import PlainData
from torch import nn

from lavis.common import dist
from lavis.common.config.loading import Config
from lavis.common.config.run import RunConfig
from lavis.common.errors import RecordError
from lavis.datasets.rows import Row
from lavis.models.base import BaseModel
from lavis.runners import evaluator as evaluation
from lavis.runners.runner import RunnerBase, RunnerIter
from lavis.tasks.base import BaseTask

SIZE = 6


class TinyModel(nn.Module):
    """Frozen tower, trained trunk with dropout, a head, and a head that only labels use."""

    vision_is_frozen = True

    def __init__(self, dropout=0.5):
        super().__init__()
        torch.manual_seed(0)
        self.tower = nn.Linear(SIZE, 4).requires_grad_(False)
        self.trunk = nn.Sequential(nn.Linear(4, 8), nn.Dropout(dropout), nn.Tanh())
        self.head = nn.Linear(8, 2)
        self.qa_head = nn.Linear(8, 1)
        self.encoded = 0

    scoring_identity, scoring = BaseModel.scoring_identity, BaseModel.scoring

    def encode_frozen(self, image):
        self.encoded += len(image)
        return self.tower(image[:, 0, :1])  # (P, 1, 4)

    def frozen_fingerprint(self):
        return "tower"

    def hidden(self, samples):
        features = samples.get("vision_features")
        if features is None:
            with torch.no_grad():
                features = self.encode_frozen(samples["image"])
        return self.trunk(features[:, 0])[torch.as_tensor(samples["image_index"])]

    def forward(self, samples):
        hidden = self.hidden(samples)
        loss = nn.functional.cross_entropy(self.head(hidden), samples["label"])
        losses = {"loss_label": loss}
        if "qa_label" in samples:
            losses["loss_qa"] = (self.qa_head(hidden)[:, 0] - samples["qa_label"]).square().mean()
        return {"loss": sum(losses.values()), **losses}

    @torch.no_grad()
    def predict(self, samples):
        return {"prediction": self.head(self.hidden(samples)).softmax(-1)}

    def get_optimizer_params(self, weight_decay, lr_layer_decay):
        params = [p for p in self.parameters() if p.requires_grad]
        return [{"params": params, "weight_decay": weight_decay, "lr_scale": 1.0}]

    def trainable_state_dict(self):
        return {k: v for k, v in self.state_dict().items() if not k.startswith("tower")}

    def full_state_dict(self):
        return self.state_dict()

    def load_state(self, state, strict_trainable=True):
        self.load_state_dict(state, strict=False)


class TinyData(PlainData):
    """`length` rows over half as many images; the label says on which side the image is."""

    def __init__(self, length=24, bad=(), qa=False, name="tiny", split="train", offset=0):
        self.length, self.bad, self.qa, self.offset = length, set(bad), qa, offset
        self.name, self.split = name, split
        self.vis_processor = SimpleNamespace(deterministic=True)
        self.decoded = 0

    def __len__(self):
        return self.length

    def row(self, index, rng=None):
        if index in self.bad:
            raise RecordError("broken on purpose")
        return Row(index, f"p{index // 2 + self.offset}", f"text {index}", {"index": index})

    def image(self, row, rng=None):
        self.decoded += 1
        generator = torch.Generator().manual_seed(int(row.image_key[1:]))
        return torch.randn(3, SIZE, SIZE, generator=generator)

    def collate(self, rows, images, image_index):
        numbers = [int(row.image_key[1:]) for row in rows]
        samples = {
            "image" if images.ndim == 4 else "vision_features": images,
            "image_index": torch.tensor(image_index),
            "text_input": [row.text for row in rows],
            "label": torch.tensor([n % 2 for n in numbers]),
            "rows": rows,
        }
        if self.qa:
            samples["qa_label"] = torch.tensor([n / 10 for n in numbers])
        return samples

    def source(self, index):
        return {"file": self.name, "line": index}

    def fingerprint(self):
        return {"name": self.name, "length": self.length, "bad": sorted(self.bad)}


class TinyTask(BaseTask):
    """Counts batches, may die before one, and writes all rows as JSON."""

    def __init__(self, kill_at=None, spoil_at=None, metrics=None):
        super().__init__(None)
        self.kill_at, self.spoil_at, self.batches = kill_at, spoil_at, 0
        self.metrics = list(metrics or [])
        self.scored = 0

    def train_step(self, model, samples):
        if self.batches == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        losses = model(samples)
        if self.batches == self.spoil_at:
            losses["loss"] = losses["loss"] * float("nan")
        self.batches += 1
        return losses

    def predict(self, model, batch):
        self.scored += len(batch.rows)
        return model.predict(batch.samples)

    def scored_rows(self, batch, outputs):
        rows = zip(batch.rows, outputs["prediction"][:, 1].tolist(), strict=True)
        return [(row.index, {**row.fields, "score": score}) for row, score in rows]

    def write_results(self, results):
        rows = [json.loads(raw) for _, raw in results.reader.iterate_raw()]
        path = results.score_path(".json")
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(rows))
        agg = self.metrics.pop(0) if self.metrics else 0.0
        return {"agg_metrics": agg, "rows": len(rows), "report": results.full}


def make_runner(folder, task=None, model=None, datasets=None, world=None, tree=None, **run):
    values = dict(
        task="tiny", output_dir=str(folder), device="cpu", lr_sched="linear_warmup_cosine_lr",
        init_lr=0.05, max_epoch=2, batch_size_train=4, batch_size_eval=4, log_freq=2,
        train_splits=["train"], timeout_minutes=0.5,
    )  # fmt: skip
    values.update(run)
    data = datasets or {"tiny": {"train": TinyData(), "test": TinyData(10, bad=[3], offset=50)}}
    section = {k: v for k, v in values.items() if k != "device"}
    tree = tree or {"model": {"arch": "tiny"}, "datasets": {}, "run": section}
    cfg = Config(model=None, datasets={}, run=RunConfig(**values), task=None, tree=tree)
    cls = RunnerIter if values.get("runner") == "runner_iter" else RunnerBase
    return cls(cfg, task or TinyTask(), model or TinyModel(), data, world=world)


def main(argv):
    """Train into FOLDER/train with `key=value` of `run`, then score with fixed weights.

    `kill_at=K` ends the last rank like a power cut before batch K; scores go to FOLDER/evaluate.
    `rows=N` scores so many rows and trains nothing.
    """
    folder, options = Path(argv[0]), dict(item.split("=", 1) for item in argv[1:])
    run = {key: json.loads(value) for key, value in options.items()}
    kill_at, rows = run.pop("kill_at", None), run.pop("rows", None)
    torch.set_num_threads(1)
    world = dist.start("cpu", 0.5)
    if not world.is_main:
        evaluation.finished = _refuse  # what is left is rank 0's to say, others may see it late
    if rows is not None:
        data = {"tiny": {"test": TinyData(rows, offset=50)}}
        runner = make_runner(
            folder, datasets=data, world=world, test_splits=["test"], batch_size_eval=2, **run
        )
        assert runner.evaluate()["test"]["rows"] == rows
        world.close()
        return
    task = TinyTask(kill_at if world.rank == world.size - 1 else None)
    make_runner(folder / "train", task, world=world, **run).train()
    metrics = make_runner(folder / "evaluate", world=world, test_splits=["test"]).evaluate()
    assert metrics["test"]["rows"] == 10
    world.close()


def _refuse(*given):
    raise AssertionError("only rank 0 reads what is finished")


def run_rank(argv, env, log):
    """Be one rank in a fresh process: environment of the launcher, stderr into a file."""
    os.environ.update(env)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT, 0o644), 2)
    main(argv)
