"""A run file, real records, a tiny critic: train, resume, score; through the front end's path."""

import json

import pytest
import torch
from PIL import Image, ImageDraw

from lavis.common.cli import build_runner
from lavis.common.config.loading import load_config

RUN_FILE = """
model:
  arch: blip2_critic
  model_type: pretrain
  load_pretrained: false
  image_size: 28
  num_query_token: 4
  max_txt_len: 32
  vit: {{embed_dim: 32, depth: 2, num_heads: 4}}
  qformer:
    {{hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 64}}
datasets:
  unified_vqa_binary:
    build_info:
      annotations:
        train: {{storage: [records.jsonl]}}
        val: {{storage: [records.jsonl]}}
        test: {{storage: [records.jsonl]}}
      images: {{storage: {folder}, ann_root: {folder}}}
    vis_processor:
      train: {{name: blip_image_eval, image_size: 28}}
      eval: {{name: blip_image_eval, image_size: 28}}
    text_processor:
      train: {{name: blip_unified_vqa, prompt: ""}}
      eval: {{name: blip_unified_vqa, prompt: ""}}
run:
  task: multimodal_classification
  lr_sched: linear_warmup_cosine_step_lr
  init_lr: 3e-3
  weight_decay: 0.05
  max_grad_norm: 1.0
  max_epoch: 2
  batch_size_train: 8
  batch_size_eval: 5
  save_every_steps: 1
  device: cpu
  seed: 1
  output_dir: {folder}/out
  train_splits: [train]
  valid_splits: [val]
  test_splits: [test]
"""


@pytest.fixture
def world_on_disk(tmp_path):
    colors = {"red": (255, 0, 0), "blue": (0, 0, 255)}
    records = []
    for number in range(24):
        shown = list(colors)[number % 2]
        image = Image.new("RGB", (40, 40), (128, 128, 128))
        ImageDraw.Draw(image).rectangle((8, 8, 30, 30), fill=colors[shown])
        image.save(tmp_path / f"{number}.png")
        for claimed in colors:
            records.append(
                {
                    "image": f"{number}.png",
                    "source": "boxes",
                    "index": f"r{len(records)}",
                    "region": [0],
                    "region_all": [0],
                    "references": [{"name": "0", "boxes": [[8, 8, 30, 30]], "obj_guess": "box"}],
                    "question": ["Which", "colour", "is", [0], "?"],
                    "answer": [claimed],
                    "rationale": [[0], "is", claimed],
                    "label": int(claimed == shown),
                }
            )
    records.append({**records[0], "image": "missing.png"})
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    (tmp_path / "run.yaml").write_text(RUN_FILE.format(folder=tmp_path))
    return tmp_path


def build(folder, *options, mode="train"):
    torch.manual_seed(0)
    return build_runner(load_config(folder / "run.yaml", list(options), mode=mode))


def test_a_tiny_critic_is_trained_resumed_and_scores(world_on_disk):
    folder = world_on_disk
    runner = build(folder)
    metrics = runner.train()
    assert {"agg_metrics"} <= metrics["test"].keys()
    scores = json.loads((folder / "out/result/test_epochbest.json").read_text())
    assert len(scores) == 48 and all(0 <= row["score"] <= 1 for row in scores)
    rejects = (folder / "out/rejects.jsonl").read_text()
    assert "missing.png" in rejects
    losses = [
        json.loads(line) for line in (folder / "out/log.txt").read_text().splitlines()
        if line.startswith('{"train')
    ]  # fmt: skip
    assert losses[1]["train_loss"] < losses[0]["train_loss"]

    # Stopped in the second epoch and started again: the same weights as without the stop.
    stopped = build(folder, f"run.output_dir={folder}/stopped")
    step, calls = stopped.task.train_step, []

    def stop(model, samples):
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return step(model, samples)

    stopped.task.train_step = stop
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    again = build(folder, f"run.output_dir={folder}/stopped")
    again.train()
    for name, weight in runner.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name]), name

    # The checkpoint is a model file, and features in place of images give the same scores.
    scored = build(
        folder, f"model.pretrained={folder}/out/checkpoint_best/model.safetensors",
        "model.load_pretrained=true", "model.allow_missing=true", "run.cache_features=true",
        f"run.output_dir={folder}/scored", mode="evaluate",
    )  # fmt: skip
    scored.model.visual_encoder.load_state_dict(runner.model.visual_encoder.state_dict())
    scored.evaluate()
    rows = json.loads((folder / "scored/result/test_epochbest.json").read_text())
    assert [row["score"] for row in rows] == pytest.approx([row["score"] for row in scores])
    features = [path for path in (folder / "scored/cache").rglob("*") if path.is_file()]
    assert len(features) == 24  # distinct images, of 48 rows
