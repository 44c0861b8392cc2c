"""CLIP vectors and scores: the published values, and the faults of the published code on demand."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import SiglipConfig, SiglipModel

from lavis.common.errors import ConfigError
from lavis.generators.clip import ClipEncoder, Preprocessing, preprocess, truncate
from projects.checks.golden.clip import clip_checks

FIXTURES = Path(__file__).parents[1] / "fixtures" / "vlmig" / "clip"


CASES = ("same_prompt", "padded_prompts", "prompt_with_id_1", "prompt_over_77")


def test_scores_and_pixels_equal_the_published_ones():
    checks = list(clip_checks(FIXTURES))
    assert {check.name.split(".")[1] for check in checks} == {*CASES, "preprocess"}
    assert [check for check in checks if not check.passed] == []


def test_long_texts_keep_start_and_end():
    ids = torch.tensor([[90, 1, 2, 3, 4, 99], [90, 5, 99, 99, 99, 99], [90, 6, 7, 99, 99, 99]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0]])
    cut, seen = truncate(ids, mask, 4)
    assert cut.tolist() == [[90, 1, 2, 99], [90, 5, 99, 99], [90, 6, 7, 99]]
    assert seen.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert truncate(ids, mask, 6)[0] is ids


def test_a_folder_without_settings_gets_the_towers_size(clip_folder):
    encoder = ClipEncoder.from_pretrained(clip_folder, device="cpu")
    assert encoder.preprocessing == Preprocessing(64, 64)
    settings = {"size": {"shortest_edge": 80}, "crop_size": {"height": 64, "width": 64}}
    Path(clip_folder, "preprocessor_config.json").write_text(json.dumps(settings))
    encoder = ClipEncoder.from_pretrained(clip_folder, device="cpu")
    Path(clip_folder, "preprocessor_config.json").unlink()
    assert encoder.preprocessing == Preprocessing(80, 64)
    assert preprocess([Image.new("RGB", (33, 99))], encoder.preprocessing).shape == (1, 3, 64, 64)


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot load .*nowhere. as a CLIP model"):
        ClipEncoder.from_pretrained(str(tmp_path / "nowhere"), device="cpu")


def test_siglip_is_no_clip_model(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    sizes["num_attention_heads"] = 2
    config = SiglipConfig(text_config=sizes, vision_config=sizes)
    SiglipModel(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="it is a 'siglip', whose scores are not CLIP's"):
        ClipEncoder.from_pretrained(str(tmp_path))
