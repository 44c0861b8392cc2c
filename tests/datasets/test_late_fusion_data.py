"""The data sets of late fusion in one run: loaded from a run file, mixed by weight."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lavis.common.config.loading import load_config
from lavis.common.errors import ConfigError
from lavis.datasets.base import TrainingView
from lavis.datasets.builders import build_dataset
from lavis.runners.loader import TrainBatches
from lavis.runners.sampler import BatchSampler

WORDS = [f"w{i}" for i in range(30)]


@pytest.fixture
def world(tmp_path):
    """Published files of all four data sets, small."""
    for name in ("vg/VG_100K", "coco/train2017", "wiki"):
        (tmp_path / name).mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    regions = []
    for number in range(12):
        Image.fromarray(pixels).save(tmp_path / "coco/train2017" / f"{number}.jpg")
        Image.fromarray(pixels).save(tmp_path / "vg/VG_100K" / f"{number}.jpg")
        place = {"x": 1, "y": 2, "width": 3 + number, "height": 9}
        entry = {"region_id": number, "image_id": number, "phrase": f"region {number}", **place}
        regions.append({"id": number, "regions": [entry]})
    (tmp_path / "vg/region_descriptions.json").write_text(json.dumps(regions))
    rows = [
        {
            "url": f"http://images.cocodataset.org/train2017/{n}.jpg",
            "caption": f"long caption {n}",
            "short_caption": f"short {n}",
            "file": f"train2017/{n}.jpg",
        }
        for n in range(12)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "captions.jsonl").write_text(lines)
    (tmp_path / "wiki/wiki.train.raw").write_text(" . ".join(WORDS * 20) + "\n")
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate([*WORDS, ".", "?"])}, "?"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="?")
    fast.save_pretrained(tmp_path / "llm")
    return tmp_path


def run_file(world, **datasets):
    tree = {
        "model": {"arch": "late_fusion", "model_type": "default", "llm": str(world / "llm")},
        "datasets": datasets,
        "run": {
            "task": "visual_language_modeling",
            "tokenizer": "${model.llm}",
            "output_dir": str(world / "out"),
            "train_splits": ["train"],
            "train_dataset_ratios": {name: weight for weight, name in enumerate(datasets, 1)},
        },
    }
    path = world / "run.yaml"
    OmegaConf.save(OmegaConf.create(tree), path)
    return load_config(path, mode="train")


def sections(world):
    cache = {"cache_dir": str(world / "cache")}
    return {
        "wiki": {"data_dir": str(world / "wiki"), "block_size": 9, "with_images": False, **cache},
        "cropped_vg": {"data_dir": str(world / "vg"), **cache},
        "laion_220": {
            "data_dir": str(world / "captions.jsonl"),
            "short": True,
            "build_info": {"images": {"storage": str(world / "coco")}},
            **cache,
        },
        "captioned_images": {
            "image_key": "file",
            "text_key": "caption",
            "build_info": {
                "annotations": {"train": {"storage": str(world / "captions.jsonl")}},
                "images": {"storage": str(world / "coco")},
            },
            **cache,
        },
    }


def test_a_run_file_needs_little_and_mixes_all_four(world):
    config = run_file(world, **sections(world))
    assert config.datasets["wiki"].tokenizer == str(world / "llm")
    opened = [build_dataset(name, cfg, "train") for name, cfg in config.datasets.items()]
    names = [dataset.name for dataset in opened]
    ratios = [config.run.train_dataset_ratios[name] for name in names]
    sampler = BatchSampler([len(d) for d in opened], batch_size=4, seed=1, ratios=ratios)
    batches = TrainBatches([TrainingView(dataset, 1) for dataset in opened])
    drawn = Counter()
    requests = sampler.endless(sampler.start())
    for _, request in zip(range(200), requests, strict=False):
        batch = batches[request]
        name = names[request.dataset]
        drawn[name] += 1
        samples = batch.samples
        assert len(samples["text_input"]) == 4 and not batch.rejects
        if name == "wiki":
            assert "image" not in samples
            assert {len(ids) for ids in samples["token_ids"]} == {9}
        else:
            begin = {"cropped_vg": "region", "laion_220": "short", "captioned_images": "long"}
            assert all(text.startswith(begin[name]) for text in samples["text_input"])
            assert samples["image"].shape == (4, 3, 224, 224)
            assert torch.equal(samples["image_index"], torch.arange(4))
    assert [name for name, _ in drawn.most_common()] == names[::-1]  # weights 4, 3, 2, 1


def test_what_a_run_file_gets_wrong_is_named(world):
    with pytest.raises(ConfigError, match=r"datasets\.wiki\.block_size"):
        run_file(world, wiki={"block_size": 0})
    with pytest.raises(ConfigError, match="box_format"):
        nodes = sections(world)["captioned_images"]
        run_file(world, captioned_images={**nodes, "box_format": "corners"})
    with pytest.raises(ConfigError, match="did you mean 'cropped_vg'"):
        run_file(world, croped_vg={})
