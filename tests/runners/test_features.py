"""Cached features train and score as images do, and are computed once for each image."""

import json

import pytest
import torch

from lavis.common.errors import ConfigError
from lavis.common.storage.cache import Cache
from lavis.runners.features import FeatureDataset, VisionFeatures
from nearness import assert_near


def test_cached_features_train_and_score_as_images_do(tiny, tmp_path):
    run = dict(max_epoch=2, valid_splits=["test"], test_splits=["test"], batch_size_eval=3)
    plain = tiny.make_runner(tmp_path / "plain", **run)
    plain.train()
    cached = tiny.make_runner(tmp_path / "cached", cache_features=True, **run)
    cached.train()
    torch.testing.assert_close(plain.model.head.weight, cached.model.head.weight)
    name = "result/test_epochbest.json"
    texts = [(tmp_path / kind / name).read_text() for kind in ("plain", "cached")]
    assert_near(json.loads(texts[0]), json.loads(texts[1]))
    assert plain.model.encoded > 50
    assert cached.model.encoded == 12 + 5  # images of 24 training and 10 test rows, once each
    again = tiny.make_runner(tmp_path / "cached", cache_features=True, resume="never", **run)
    again.train()
    assert again.model.encoded == 0


def test_features_of_random_images_or_a_trained_tower_are_refused(tiny, tmp_path):
    data = tiny.TinyData()
    data.vis_processor.deterministic = False
    runner = tiny.make_runner(tmp_path, datasets={"t": {"train": data}}, cache_features=True)
    with pytest.raises(ConfigError, match=r"vis_processor\.train: random images"):
        runner.train()
    model = tiny.TinyModel()
    model.vision_is_frozen = False
    with pytest.raises(ConfigError, match=r"run\.cache_features: the vision tower is trained"):
        tiny.make_runner(tmp_path / "b", model=model, cache_features=True).train()


def test_features_of_a_tower_are_kept_under_its_identity_in_float32(tmp_path):
    features = VisionFeatures(Cache(tmp_path), "tower a")
    tokens = torch.tensor([[0.5, -1.0], [2.0, 4.0]], dtype=torch.float16)  # (T, D)
    assert features.get("image") is None and not features.has("image")
    features.put("image", tokens)
    assert features.has("image") and features.get("image").dtype == torch.float32
    torch.testing.assert_close(features.get("image"), tokens.float())
    assert VisionFeatures(Cache(tmp_path), "tower b").get("image") is None


def test_a_data_set_gives_features_where_there_are_some(tiny, tmp_path):
    features = VisionFeatures(Cache(tmp_path), "tower")
    data = tiny.TinyData(length=4)
    features.put(data.row(0).image_key, torch.ones(1, 4))
    dataset = FeatureDataset(data, features)
    assert len(dataset) == 4 and dataset.name == "tiny" and not dataset.reads_images
    torch.testing.assert_close(dataset.image(data.row(0)), torch.ones(1, 4))
    assert dataset.image(data.row(2)).shape == (3, 6, 6) and data.decoded == 1
