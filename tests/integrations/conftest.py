"""A tiny GPT-2 with tower, projector and block on disk, and images for any prompt."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from chat_server import serve, settings  # noqa: F401 - fixtures
from PIL import Image

SET = Path(__file__).parents[1] / "fixtures" / "vlmig" / "eval"
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folders `llm` and `tower`, file `weights`, and `args` that name them."""
    from lavis.models.late_fusion.config import LateFusionConfig, VisionConfig
    from lavis.models.late_fusion.model import LateFusion

    root = tmp_path_factory.mktemp("tiny")
    tower, llm = root / "tower", root / "llm"
    tower.mkdir()
    (tower / "config.json").write_text((SET / "vision_config.json").read_text())
    weights = str(SET / "model.safetensors")
    vision = VisionConfig(name=str(tower), weights="config")
    config = LateFusionConfig(llm=str(SET), llm_weights="config", vision=vision, pretrained=weights)
    model = LateFusion.from_config(config)
    model.llm.save_pretrained(llm)
    (llm / "tokenizer.json").write_text((SET / "tokenizer.json").read_text())
    special = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (llm / "tokenizer_config.json").write_text(json.dumps(special))
    args = {
        "llm": str(llm),
        "pretrained": weights,
        "vision.name": str(tower),
        "vision.weights": "config",
        "image_size": 32,
    }
    return SimpleNamespace(llm=llm, tower=tower, weights=weights, args=args)


@pytest.fixture
def images(tmp_path):
    """Write images for prompts; returns arguments that take K of them from there."""

    def write(prompts, count):
        root = tmp_path / "pictures"
        root.mkdir()
        lines = []
        for number, prompt in enumerate(prompts):
            names = [f"{number}-{place}.png" for place in range(count)]
            for place, name in enumerate(names):
                shade = (40 * number % 256, 90 * place % 256, 17 * (number + place) % 256)
                Image.new("RGB", (32, 32), shade).save(root / name)
            lines.append(json.dumps({"prompt": prompt, "images": names}))
        (root / "manifest.jsonl").write_text("\n".join(lines) + "\n")
        options = {"root": str(root), "manifest": str(root / "manifest.jsonl")}
        return {
            "generator": "folder",
            "k": count,
            "weights": "mean",
            "scorer": None,
            "cache_dir": str(tmp_path / "cache"),
            **{f"options.{name}": value for name, value in options.items()},
        }

    return write
