"""A small LCK corpus on disk, and a way to open it."""

import json
from types import SimpleNamespace

import pytest
from PIL import Image

from lavis.datasets.builders import build_dataset
from lavis.datasets.config import LckConfig


def lck_record(number=0, **changes):
    """Return a good record about two regions of `a.png`; a change to `...` drops the key."""
    record = {
        "image": "a.png",
        "source": "test",
        "split": "train",
        "index": f"test-{number}",
        "region": [3, 1],
        "region_all": [1, 2, 3],
        "references": [
            {"name": str(i), "boxes": [[i, i, i + 10, i + 8]], "segms": None, "obj_guess": f"o{i}"}
            for i in (1, 2, 3)
        ],
        "question": ["What", "is", [3], "?"],
        "answer": ["Near", [1], "."],
        "rationale": ["I", "see", [3, 1], "."],
    }
    return {k: v for k, v in {**record, **changes}.items() if v is not ...}


def write_lines(path, records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return str(path)


def open_lck(folder, storage, *, split="test", source=None, **options):
    """Open LCK files with images of `folder`, processed at 16 pixels."""
    processors = {
        "train": {"name": "blip_image_train", "image_size": 16},
        "eval": {"name": "blip_image_eval", "image_size": 16},
    }
    config = LckConfig(
        build_info={
            "annotations": {split: {"storage": storage, **(source or {})}},
            "images": {"storage": str(folder)},
        },
        vis_processor={**processors, **options.pop("vis_processor", {})},
        text_processor={k: {"name": "blip_unified_vqa"} for k in ("train", "eval")},
        cache_dir=str(folder / "unpacked"),
        **options,
    )
    return build_dataset("unified_vqa_binary", config, split)


@pytest.fixture(scope="session")
def lck():
    """`record(number, **changes)`, `write(path, records)` and `open(folder, storage, ...)`."""
    return SimpleNamespace(record=lck_record, write=write_lines, open=open_lck)


@pytest.fixture
def images(tmp_path):
    """A folder with `a.png` (40 x 30)."""
    Image.linear_gradient("L").resize((40, 30)).convert("RGB").save(tmp_path / "a.png")
    return tmp_path
