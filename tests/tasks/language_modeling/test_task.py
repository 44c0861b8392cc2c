"""Training late fusion on captions: what is predicted, what is not, and what is the same thing."""

from __future__ import annotations

import importlib.util
import json
import math
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from plain_data import PlainData

from lavis.common.errors import ConfigError, NothingDoneError
from lavis.datasets.rows import Row
from lavis.tasks.language_modeling.config import LanguageModelingConfig
from lavis.tasks.language_modeling.task import VisualLanguageModelingTask
from lavis.tasks.language_modeling.tokens import IGNORED, CaptionTokenizer

_spec = importlib.util.spec_from_file_location(
    "caption_run", Path(__file__).with_name("caption_run.py")
)
made = importlib.util.module_from_spec(_spec)
sys.modules["caption_run"] = made
_spec.loader.exec_module(made)
KINDS = ("llama", "gpt2", "gemma", "bert")


class World:
    rank, size, is_main = 0, 1, True

    def beat(self, where): ...

    def barrier(self, what): ...

    def gather(self, value, what=""):
        return [value]


class Captions(PlainData):
    """Captions with an image of random pixels each; `blocks` gives token ids, as wiki does."""

    name, split = "captions", "train"
    vis_processor = SimpleNamespace(deterministic=True, image_size=8)

    def __init__(self, count=6, *, blocks=None, has_images=True):
        self.texts, self.blocks = made.captions(count), blocks
        self.has_images = has_images

    def __len__(self):
        return len(self.texts)

    def row(self, index, rng=None):
        targets = {"token_ids": self.blocks[index]} if self.blocks else {}
        return Row(index, f"p{index}", self.texts[index], {"index": index}, targets=targets)

    def image(self, row, rng=None):
        return torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(row.index))

    def collate(self, rows, images, image_index):
        samples = {
            "text_input": [row.text for row in rows],
            "image_index": torch.tensor(image_index),
            "rows": rows,
        }
        if images is not None:
            samples["image" if images.ndim == 4 else "vision_features"] = images
        if self.blocks:
            samples["token_ids"] = [list(row.targets["token_ids"]) for row in rows]
        return samples

    def batch(self, indices, features=None):
        rows = [self.row(index) for index in indices]
        if not self.has_images:
            return self.collate(rows, None, [-1] * len(rows))
        images = torch.stack([self.image(row) for row in rows])
        images = images if features is None else features(images)
        return self.collate(rows, images, list(range(len(rows))))

    def source(self, index):
        return {"file": self.name, "line": index}

    def fingerprint(self):
        return {"name": self.name}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return a model in evaluation mode (no dropout) and a task for it, by kind."""
    built = {}

    def get(kind, **options):
        if kind not in built:
            folder = tmp_path_factory.mktemp(kind)
            built[kind] = made.make_model(folder, kind).eval(), folder / kind
        model, llm = built[kind]
        config = LanguageModelingConfig(tokenizer=str(llm), **options)
        return model, VisualLanguageModelingTask(config)

    return get


def prepare(task, model, datasets, folder, **run):
    from contextlib import nullcontext

    values = {"seed": 3, "cache_features": False, "amp": False, "batch_size_eval": 4, **run}
    task.prepare_training(
        model, datasets, epoch=0, run=SimpleNamespace(**values), world=World(), folder=folder,
        autocast=nullcontext,
    )  # fmt: skip


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ("llama", "gpt2", "gemma"))
def test_the_loss_is_the_cross_entropy_of_visible_tokens(models, kind):
    model, task = models(kind)
    data = Captions()
    batch = data.batch([0, 1, 2])
    tokens = task.texts.tokens(batch)
    assert len({len(ids) for ids in tokens}) > 1
    loss = task.train_step(model, batch)["loss"]
    each = []
    features = model.encode_images(batch["image"])
    for row, ids in enumerate(tokens):  # alone, without padding, logits of all positions
        text = model.encode_text(torch.tensor([ids]))
        rows = torch.arange(-1, len(ids) - 1)[None]
        hidden = model.fuse(text, features[row : row + 1], torch.zeros(1, 1, dtype=int), rows)
        log_probs = model.logits(hidden)[0, 0].log_softmax(-1)
        first = int(kind == "gemma")  # its start token makes room for the image
        each += (-log_probs[range(first, len(ids)), ids[first:]]).tolist()
    assert loss.item() == pytest.approx(sum(each) / len(each), abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_neither_loss_nor_gradient(models, kind, monkeypatch):
    model, task = models(kind)
    batch = Captions().batch([0, 1, 2, 3])
    torch.manual_seed(0)
    given = task.texts.batch(task.texts.tokens(batch))
    given = task.texts.mask(given) if model.fills_masks else given
    wider = {name: F.pad(value, (0, 3)) for name, value in given.items()}
    wider["labels"] = F.pad(given["labels"], (0, 3), value=IGNORED)
    wider["input_ids"][:, -3:] = 5
    index = torch.arange(4)[:, None]
    one, two = (
        model({**rows, "image": batch["image"], "image_index": index}) for rows in (given, wider)
    )
    assert int(one["targets"]) == int(two["targets"])
    torch.testing.assert_close(one["loss"], two["loss"], atol=1e-6, rtol=1e-6)
    first, second = gradients(model, one["loss"]), gradients(model, two["loss"])
    assert first.keys() == second.keys() and first
    for name in first:
        torch.testing.assert_close(first[name], second[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_without_padding_train(models, kind):
    model, task = models(kind)
    draw = random.Random(0)
    blocks = [tuple(draw.randrange(6, 18) for _ in range(30)) for _ in range(4)]
    data = Captions(4, blocks=blocks)
    assert task.texts.tokens(data.batch(range(4))) == blocks
    loss = task.train_step(model, data.batch(range(4)))["loss"]
    assert torch.isfinite(loss) and loss > 0
    assert all(torch.isfinite(g).all() for g in gradients(model, loss).values())


def test_texts_are_cut_to_what_was_asked_and_to_what_fits(models, tmp_path):
    model, task = models("llama", max_length=4)
    assert [len(ids) for ids in task.texts.tokens(Captions().batch([0, 2]))] == [4, 4]
    blocks = [tuple(range(3, 12))] * 2
    assert task.texts.tokens(Captions(2, blocks=blocks).batch([0])) == [blocks[0][:4]]
    model, task = models("gpt2")  # 64 positions, 4 of them patches
    data = Captions(2, blocks=[(5,) * 90] * 2)
    with pytest.raises(ConfigError, match="positions"):
        task.train_step(model, data.batch([0, 1]))
    prepare(task, model, [data], tmp_path)
    assert len(task.texts.tokens(data.batch([0]))[0]) == 60
    assert torch.isfinite(task.train_step(model, data.batch([0, 1]))["loss"])


def test_an_empty_text_is_no_target(models):
    model, task = models("gpt2")
    data = Captions(3)
    with_empty = data.batch([0, 1])
    data.texts[2] = ""
    batch = data.batch([0, 1, 2])
    one, two = (task.train_step(model, each)["loss"] for each in (with_empty, batch))
    torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-6)
    assert torch.isfinite(task.train_step(model, data.batch([2]))["loss"])


def test_named_words_are_told_apart_and_nothing_else_counts(models, tmp_path):
    model, task = models("llama", loss_vocabulary=["red", "green"])
    data = Captions(2)
    prepare(task, model, [data], tmp_path)
    tokens = task.texts.tokenizer.convert_ids_to_tokens(task._vocabulary)
    assert set(tokens) == {"red", "green"}
    batch = data.batch([1])
    ids = task.texts.tokens(batch)[0]
    (place,) = [n for n, i in enumerate(ids) if i in task._vocabulary.tolist()]
    text, features = model.encode_text(torch.tensor([ids])), model.encode_images(batch["image"])
    at = torch.tensor([[place - 1]])
    hidden = model.fuse(text, features, torch.zeros(1, 1, dtype=int), at)[0, 0]
    gold = torch.searchsorted(task._vocabulary, torch.tensor([ids[place]]))
    expected = F.cross_entropy(model.logits(hidden)[:, task._vocabulary], gold)
    loss = task.train_step(model, batch)["loss"]
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)


def test_a_named_word_of_two_tokens_is_refused(models, tmp_path):
    model, task = models("llama", loss_vocabulary=["red", "red green"])
    with pytest.raises(ConfigError, match="'red green' is 2 tokens"):
        prepare(task, model, [Captions(2)], tmp_path)


def test_seen_tokens_are_the_vocabulary(models, tmp_path):
    model, task = models("llama", loss_vocabulary="seen")
    data = Captions(2)  # "a box is red .", "a ball is green"
    prepare(task, model, [data], tmp_path)
    words = task.texts.tokenizer.convert_ids_to_tokens(task._vocabulary)
    assert set(words) == {"<s>", "a", "box", "ball", "is", "red", "green", "."}
    batch = data.batch([1])
    loss = task.train_step(model, batch)["loss"]
    ids = task.texts.tokens(batch)[0]
    text = model.encode_text(torch.tensor([ids]))
    features = model.encode_images(batch["image"])
    rows = torch.arange(-1, len(ids) - 1)[None]
    hidden = model.fuse(text, features, torch.zeros(1, 1, dtype=int), rows)
    logits = model.logits(hidden)[0, 0][:, task._vocabulary]
    places = torch.searchsorted(task._vocabulary, torch.tensor(ids))
    torch.testing.assert_close(loss, F.cross_entropy(logits, places), atol=1e-5, rtol=1e-5)
    alone = task.load_unit(data, task.plan(data, 1), 1)
    found = task.predict(model, alone)
    index = alone.rows[0].index
    ids = task.texts.tokens(data.batch([index]))[0]
    hidden = model.fuse(
        model.encode_text(torch.tensor([ids])),
        model.encode_images(data.batch([index])["image"]),
        torch.zeros(1, 1, dtype=int),
    )[0, 0, :-1]
    places = torch.searchsorted(task._vocabulary, torch.tensor(ids[1:]))
    expected = F.cross_entropy(model.logits(hidden)[:, task._vocabulary], places)
    torch.testing.assert_close(found["loss"][0], expected, atol=1e-5, rtol=1e-5)
    _, plain = models("llama")
    assert plain.identity() != task.identity()


@pytest.mark.parametrize("kind", ("llama", "gemma", "bert"))
def test_cached_outputs_of_the_frozen_parts_train_the_same(models, kind, tmp_path, monkeypatch):
    model, task = models(kind)
    data = Captions(6)
    torch.manual_seed(0)
    plain = task.train_step(model, data.batch([0, 3, 5]))["loss"]
    expected = gradients(model, plain)
    _, cached = models(kind)
    prepare(cached, model, [data], tmp_path, cache_features=True)
    batch = data.batch([0, 3, 5], features=model.encode_frozen)

    def refuse(*args, **kwargs):
        raise AssertionError("a frozen part ran in a training step")

    monkeypatch.setattr(model.mm_model, "forward", refuse)
    if kind != "bert":  # what it reads is hidden anew at each step
        monkeypatch.setattr(model.language.base, "forward", refuse)
    torch.manual_seed(0)
    loss = cached.train_step(model, batch)["loss"]
    torch.testing.assert_close(loss, plain, atol=1e-5, rtol=1e-5)
    found = gradients(model, loss)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-4)


def test_masks_fall_on_words_only_and_each_text_has_one(models):
    _, task = models("bert")
    tokenizer = task.texts.tokenizer
    batch = task.texts.batch(task.texts.tokens({"text_input": made.captions(12) * 200}))
    torch.manual_seed(0)
    hidden = task.texts.mask(batch)
    chosen = hidden["labels"] != IGNORED
    special = torch.tensor([tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id])
    words = batch["attention_mask"].bool() & ~torch.isin(batch["input_ids"], special)
    assert not (chosen & ~words).any() and chosen.any(dim=1).all()
    assert torch.equal(hidden["labels"][chosen], batch["input_ids"][chosen])
    assert torch.equal(hidden["input_ids"][~chosen], batch["input_ids"][~chosen])
    shown = hidden["input_ids"][chosen]
    masked = (shown == tokenizer.mask_token_id).float().mean()
    assert masked == pytest.approx(0.8, abs=0.03)
    changed = (shown != batch["input_ids"][chosen]) & (shown != tokenizer.mask_token_id)
    assert changed.float().mean() == pytest.approx(0.1, abs=0.03)
    share = CaptionTokenizer(tokenizer, mlm_probability=0.5)
    longer = share.mask(share.batch([(7,) * 400]))["labels"] != IGNORED
    assert longer.float().mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_held_out_text_has_a_loss_with_and_without_its_image(models, kind):
    model, task = models(kind)
    data = Captions(5)
    task.prepare(model, data, World())
    plan = task.plan(data, 3)
    rows = {}
    for unit in range(len(plan)):
        batch = task.load_unit(data, plan, unit)
        rows.update(task.rows(batch, task.predict(model, batch)))
    assert sorted(rows) == list(range(5))
    batch = task.load_unit(data, plan, 0)
    again = dict(task.rows(batch, task.predict(model, batch)))
    assert all(rows[index] == row for index, row in again.items())
    if kind == "bert":
        return
    ids = task.texts.tokens(data.batch([4]))[0]
    log_probs = model.logits(model.encode_text(torch.tensor([ids])).hidden)[0].log_softmax(-1)
    expected = F.nll_loss(log_probs[:-1], torch.tensor(ids[1:]))
    assert rows[4]["text_loss"] == pytest.approx(expected.item(), abs=1e-5)
    assert rows[4]["tokens"] == len(ids) - 1 and rows[4]["text"] == data.texts[4]
    features = model.encode_images(data.batch([4])["image"])
    text = model.encode_text(torch.tensor([ids]))
    hidden = model.fuse(text, features, torch.zeros(1, 1, dtype=int))[0, 0, :-1]
    expected = F.cross_entropy(model.logits(hidden), torch.tensor(ids[1:]))
    assert rows[4]["loss"] == pytest.approx(expected.item(), abs=1e-5)
    assert rows[4]["loss"] != pytest.approx(rows[4]["text_loss"], abs=1e-4)


def test_metrics_are_means_over_tokens(models, tmp_path):
    _, task = models("llama")
    rows = [
        (0, {"index": 0, "tokens": 3, "loss": 1.0, "text_loss": 2.0}),
        (1, {"reject": "empty text", "line": 2}),
        (2, {"index": 2, "tokens": 1, "loss": 3.0, "text_loss": 4.0}),
        (3, {"index": 3, "tokens": 0, "loss": None, "text_loss": None}),
    ]
    reader = SimpleNamespace(iterate_raw=lambda: ((n, json.dumps(row).encode()) for n, row in rows))
    found = task.finish(reader, Captions(), tmp_path, "val_epoch0")
    assert found["loss"] == 1.5 and found["text_loss"] == 2.5 and found["agg_metrics"] == -1.5
    assert found["perplexity"] == pytest.approx(math.exp(1.5))
    assert (found["rows"], found["rejected"], found["tokens"]) == (4, 1, 4)
    assert json.loads((tmp_path / "result/val_epoch0.json").read_text()) == [r for _, r in rows]
    rows[:] = rows[1:2]
    with pytest.raises(NothingDoneError, match="no token to predict"):
        task.finish(reader, Captions(), tmp_path, "val_epoch0")


def test_texts_without_images_train_the_block_too(models, tmp_path):
    model, task = models("llama")
    data = Captions(4, has_images=False)
    prepare(task, model, [data], tmp_path)
    loss = task.train_step(model, data.batch([0, 1]))["loss"]
    assert gradients(model, loss)
    task.plan(data, 4)
    batch = task.load_unit(data, task.plan(data, 4), 0)
    assert all(row["tokens"] for _, row in task.rows(batch, task.predict(model, batch)))
    _, blank = models("llama", blank_images=True)
    other = Captions(4)
    other.image = lambda row, rng=None: torch.ones(3, 8, 8)
    losses = [blank.train_step(model, each.batch([0, 1]))["loss"] for each in (Captions(4), other)]
    assert losses[0] == losses[1]


def test_bf16_autocast_trains(models):
    model, task = models("llama")
    batch = Captions(4).batch([0, 1, 2])
    plain = task.train_step(model, batch)["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = task.train_step(model, batch)["loss"]
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, plain, atol=0.1, rtol=0.05)
    assert all(torch.isfinite(g).all() for g in gradients(model, loss).values())


def test_what_cannot_be_exported_is_refused_before_training(models, tmp_path):
    model, task = models("llama", export_vlmig=str(tmp_path / "run"))
    prepare(task, model, [Captions()], tmp_path)
    task.finish_epoch(model, epoch=2, world=World())
    assert (tmp_path / "run_2.bin").is_file()
    model.fusion_input.is_affine = True
    with pytest.raises(ConfigError, match=r"model\.fusion\.init=random"):
        prepare(task, model, [Captions()], tmp_path)
    model.fusion_input.is_affine = False
    with pytest.raises(ConfigError, match=r"run\.tokenizer: cannot load"):
        VisualLanguageModelingTask(LanguageModelingConfig(tokenizer=str(tmp_path / "none")))
