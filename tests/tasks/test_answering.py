"""Written answers: what is right, and what a run of a generative student ends with."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from PIL import Image, ImageDraw

from lavis.common.cli import build_runner
from lavis.common.config.loading import load_config
from lavis.common.errors import ConfigError
from lavis.common.registry import tasks
from lavis.datasets.rows import Row
from lavis.tasks.answering import AnswerTally, answer_part
from lavis.tasks.base import UnitBatch

RUN_FILE = """
model:
  arch: blip2_t5
  model_type: pretrain_flant5xl
  load_pretrained: false
  image_size: 28
  num_query_token: 4
  t5_model: {llm}
  vit: {{embed_dim: 32, depth: 2, num_heads: 4}}
  qformer:
    {{hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 64}}
datasets:
  unified_vqa_chatgpt:
    data_type: csv
    split_at: question
    build_info:
      annotations:
        train: {{storage: [records.jsonl], region_mapping: null}}
        val: {{storage: [records.jsonl], region_mapping: null}}
        test: {{storage: [records.jsonl], region_mapping: null}}
      csv: {{storage: {folder}, ann_root: {folder}}}
    vis_processor:
      train: {{name: blip_image_eval, image_size: 28}}
      eval: {{name: blip_image_eval, image_size: 28}}
    text_processor:
      train: {{name: blip_unified_vqa, prompt: "question: "}}
      eval: {{name: blip_unified_vqa, prompt: "question: "}}
run:
  task: visual_answering
  max_len: 8
  lr_sched: linear_warmup_cosine_step_lr
  init_lr: 1e-2
  weight_decay: 0.0
  max_grad_norm: 1.0
  max_epoch: 3
  batch_size_train: 8
  batch_size_eval: 6
  cache_features: true
  device: cpu
  seed: 1
  output_dir: {folder}/out
  train_splits: [train]
  valid_splits: [val]
"""


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Red box. Rationale: it is red.", "red box"),
        ("a  dog RATIONALE: x", "a dog"),
        ("He runs. He is late.", "he runs"),
        ("3.5 m", "3.5 m"),
    ],
)
def test_the_answer_is_what_stands_before_the_rationale(text, answer):
    assert answer_part(text) == answer


def test_sums_are_over_tokens():
    task = tasks.get("visual_answering")(tasks.config_class("visual_answering")())
    table = AnswerTally()
    wanted = "Red. Rationale: seen."
    table.add({"loss": 1.0, "tokens": 3, "text_output": wanted, "answer": "red rationale: no"})
    table.add({"loss": 2.0, "tokens": 1, "text_output": wanted, "answer": "Red. Rationale: seen"})
    table.add({"loss": 0.0, "tokens": 4, "text_output": wanted, "answer": "blue"})
    table.counts.update(rows=3, scored=3)
    metrics = task.overall(task.summarize(table, SimpleNamespace(name="val_epoch0")))
    assert metrics["loss"] == pytest.approx(5 / 8)
    assert metrics["perplexity"] == pytest.approx(math.exp(5 / 8))
    assert metrics["exact_match"] == pytest.approx(1 / 3)
    assert metrics["answer_accuracy"] == metrics["agg_metrics"] == pytest.approx(2 / 3)
    plain = tasks.get("image_text_pretrain")(tasks.config_class("image_text_pretrain")())
    summary = plain.summarize(table, SimpleNamespace(name="val_epoch0"))
    assert plain.overall(summary)["agg_metrics"] == pytest.approx(-5 / 8)


@pytest.fixture
def world(tmp_path, language_models):
    records = []
    for number, colour in enumerate(["red", "blue"] * 8):
        image = Image.new("RGB", (40, 40), (128, 128, 128))
        ImageDraw.Draw(image).rectangle((8, 8, 30, 30), fill=colour)
        image.save(tmp_path / f"{number}.png")
        records.append(
            {
                "image": f"{number}.png",
                "index": f"r{number}",
                "region": [0],
                "region_all": [0],
                "references": [{"name": "0", "boxes": [[8, 8, 30, 30]], "obj_guess": "box"}],
                "question": ["which", "colour", "is", [0], "?"],
                "answer": [colour],
                "rationale": [[0], "is", colour],
            }
        )
    records.append({**records[0], "image": "missing.png"})
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    text = RUN_FILE.format(folder=tmp_path, llm=language_models["t5"])
    (tmp_path / "run.yaml").write_text(text)
    return tmp_path


def test_a_tiny_student_learns_to_answer(world):
    torch.manual_seed(0)
    runner = build_runner(load_config(world / "run.yaml", [], mode="train"))
    runner.train()
    lines = [json.loads(line) for line in (world / "out/evaluate.txt").read_text().splitlines()]
    losses = [line["val"]["loss"] for line in lines]
    assert losses[-1] < losses[0] - 0.1
    rows = json.loads((world / "out/result/val_epoch2.json").read_text())
    assert len(rows) == 16 and rows[0]["text"] == "question: which colour is [0] ? answer:"
    total = sum(row["loss"] * row["tokens"] for row in rows)
    assert losses[-1] == pytest.approx(total / sum(row["tokens"] for row in rows))
    right = [answer_part(row["answer"]) == answer_part(row["text_output"]) for row in rows]
    assert lines[-1]["val"]["answer_accuracy"] == pytest.approx(sum(right) / 16)
    saved = world / "out/checkpoint_best/model.safetensors"
    from safetensors import safe_open

    names = set(safe_open(saved, "pt").keys())
    assert "t5_proj.weight" in names and not any(n.startswith("t5_model") for n in names)


def test_answers_are_as_long_as_they_are_asked_to_be(world):
    lengths = []
    for least, most in ((1, 2), (7, 8)):
        folder = world / f"out{least}"
        options = [f"run.min_len={least}", f"run.max_len={most}", f"run.output_dir={folder}"]
        runner = build_runner(load_config(world / "run.yaml", options, mode="train"))
        runner.train()
        rows = json.loads((folder / "result/val_epoch2.json").read_text())
        ids = runner.model.tokenizer([row["answer"] for row in rows], add_special_tokens=False)
        lengths.append([len(each) for each in ids.input_ids])
    assert max(lengths[0]) <= 2 < min(lengths[1]) and max(lengths[1]) <= 8


def test_a_model_without_answers_of_its_own_is_refused():
    task = tasks.get("visual_answering")(None)
    critic = SimpleNamespace(answer_losses=lambda samples: None)
    with pytest.raises(ConfigError, match="generates no answers; use vlm_student"):
        task.prepare(critic, None, None)
    tasks.get("image_text_pretrain")(None).prepare(critic, None, None)
    with pytest.raises(ConfigError, match="or vlm_student"):
        task.prepare(SimpleNamespace(), None, None)


def test_a_text_that_the_model_cannot_read_is_a_reject():
    task = tasks.get("image_text_pretrain")(None)
    rows = [Row(n, "", f"text {n}", {}, targets={"text_output": "a"}) for n in (3, 5)]
    batch = UnitBatch(0, rows, {})
    losses = torch.tensor([float("nan"), 2.0])
    notes = [{"reject": "answer is empty"}, {}]
    outputs = {"loss_sum": losses, "tokens": torch.tensor([0, 4]), "notes": notes}
    model = SimpleNamespace(answer_losses=lambda samples: outputs)
    (_, bad), (number, good) = task.scored_rows(batch, task.predict(model, batch))
    assert bad == {"reject": "answer is empty"}
    assert number == 5 and good["loss"] == 0.5 and good["tokens"] == 4
