"""Tiny models, saved once a session, and a small folder of images with regions."""

import json

import numpy as np
import pytest
import tiny_models
from PIL import Image


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Return a function that saves a tiny model by name, once, and returns its folder."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = getattr(tiny_models, f"save_{name}")(tmp_path_factory.mktemp(name))
        return made[name]

    return get


def make_image(seed, size=(60, 40)):
    """Return an image of coarse noise."""
    small = np.random.default_rng(seed).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.NEAREST)


@pytest.fixture
def world(tmp_path):
    """Return a folder with five images, one of them broken, and their regions as lines."""
    images = tmp_path / "images"
    images.mkdir()
    lines = []
    for number in range(5):
        name = f"p{number}.png"
        make_image(number).save(images / name)
        boxes = [[5, 4, 30, 30], [10, 10, 55, 38]][: number % 3]
        lines.append({"image": name, "boxes": boxes, "names": ["dog", "cat"][: len(boxes)]})
    (images / "p3.png").write_bytes(b"no image")
    lines[4]["boxes"].append([50, 5, 20, 30])
    (tmp_path / "regions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "words.txt").write_text("# words\nred\nblue\ndog\ncat\ntree\n")
    return tmp_path


@pytest.fixture
def run_file(world, tiny):
    """Return a function that writes a run file of stages and gives the command's arguments."""

    def write(stages, output="out", **images):
        sections = {
            "images": {
                "root": str(world / "images"), "regions": str(world / "regions.jsonl"), **images,
            },
            "stages": stages,
            "run": {"output_dir": str(world / output), "device": "cpu", "seed": 3},
        }  # fmt: skip
        path = world / f"{output}.yaml"
        path.write_text(json.dumps(sections))
        return ["--cfg-path", str(path)]

    return write
