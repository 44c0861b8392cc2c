"""Runs of a teacher that sees: images by number, run files, and what a server was shown."""

import base64
import io
import json

import numpy as np
import pytest
import yaml
from PIL import Image

from lavis.processors.region import DrawnRegion

REGIONS = [DrawnRegion(0, (0, 0, 20, 20)), DrawnRegion(1, (50, 20, 90, 70))]
BOXES = [{"boxes": [[0, 0, 20, 20]]}, {"boxes": [[50, 20, 90, 70]]}]


def picture(number):
    """Return an image of coarse noise whose corner at the right, below, names it."""
    small = np.random.default_rng(number).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    made = Image.fromarray(small).resize((100, 100), Image.Resampling.NEAREST)
    made.paste((20 * number, 0, 0), (92, 92, 100, 100))
    return made


@pytest.fixture
def seen(job, tmp_path):
    """Return a function that writes images and a run file; the same folder each time."""

    def make(server=None, images=4, records=None, root="images", **more):
        folder = tmp_path / root
        folder.mkdir(exist_ok=True)
        for number in range(images):
            path = folder / f"a_{number:03d}.png"
            if not path.exists():
                picture(number).save(path)
        more = {"sees": ["text", "image"], "image_format": "png", **more}
        path = job(server, images=images, **more)
        if records is not None:
            text = "".join(json.dumps(one) + "\n" for one in records)
            (tmp_path / "words.jsonl").write_text(text)
        node = yaml.safe_load(path.read_text())
        node["run"]["image_root"] = str(folder)
        path.write_text(json.dumps(node))
        return path

    return make


def shown(body):
    """Return the images of a request, decoded, and its text."""
    *parts, text = body["messages"][1]["content"]
    urls = [part["image_url"]["url"].partition(",")[2] for part in parts]
    images = [Image.open(io.BytesIO(base64.b64decode(url))).convert("RGB") for url in urls]
    return images, text["text"]


def number_of(body):
    """Return which image a request shows."""
    content = body["messages"][1]["content"]
    if isinstance(content, str):
        return None
    return round(shown(body)[0][0].getpixel((96, 96))[0] / 20)


def same(one, other):
    return one.size == other.size and (np.array(one) == np.array(other)).all()
