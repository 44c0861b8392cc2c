"""Boxes lie in the frame in which an image is stored, whatever its orientation tag says.

One JPEG that viewers turn by a quarter, one box: critic, report, page, verbalizers and endpoints
must all draw on, cut from and send the same pixels.
"""

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from lavis.datasets.builders import build_dataset
from lavis.datasets.config import LckConfig
from lavis.datasets.files.images import ImageRoot
from lavis.datasets.lck.scenes import Scene, ScenesConfig, open_scene
from lavis.integrations.regions import RegionModel
from lavis.llm.base import ChatReply, image_part
from lavis.tasks.knowledge.writers import ChatWriter
from lavis.tasks.report import image_uri
from lavis.ui.shown import RecordViewer, open_corpus
from lavis.verbalizers.base import WriteRequest
from lavis.verbalizers.config import WriterConfig

SIZE = (64, 48)  # stored; a viewer shows 48 x 64
BOX = (40, 8, 60, 20)  # inside the stored frame, outside the turned one
GREEN = (5, 255, 55)  # outline of the first region in every palette
RED, GREY = (220, 30, 30), (90, 90, 90)


@pytest.fixture
def folder(tmp_path):
    image = Image.new("RGB", SIZE, GREY)
    image.paste(RED, (40, 8, 61, 21))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif, quality=100, subsampling=0)
    with Image.open(tmp_path / "turned.jpg") as stored:
        assert ImageOps.exif_transpose(stored).size == (48, 64)
        stored.convert("RGB").save(tmp_path / "plain.png", exif=Image.Exif())
    region = {"name": "1", "boxes": [list(BOX)], "obj_guess": "cup", "segms": None}
    for name in ("turned.jpg", "plain.png"):
        record = {
            "image": name, "index": name, "region": [1], "region_all": [1], "references": [region],
            "question": ["What", "is", [1], "?"], "answer": ["Red"], "rationale": ["So"],
        }  # fmt: skip
        with open(tmp_path / "r.jsonl", "a") as file:
            file.write(json.dumps(record) + "\n")
    return tmp_path


@pytest.fixture
def critic(folder):
    config = LckConfig(
        build_info={
            "annotations": {"test": {"storage": str(folder / "r.jsonl")}},
            "images": {"storage": str(folder)},
        },
        vis_processor={"eval": {"name": "blip_image_eval", "image_size": 32}},
        text_processor={"eval": {"name": "blip_unified_vqa"}},
    )
    return build_dataset("unified_vqa_binary", config, "test")


def from_uri(uri):
    head, _, data = uri.partition(",")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    image.load()
    assert head.startswith("data:image/") and not image.getexif().get(0x0112)
    return image.convert("RGB")


def near(image, place, color, by=40):
    found = np.array(image.getpixel(place), dtype=int)
    return np.abs(found - color).max() <= by


def is_drawn(image):
    """Say whether the box is outlined where it belongs, with the red inside."""
    return (
        image.size == SIZE
        and near(image, (BOX[0], 14), GREEN, 90)
        and near(image, (50, 14), RED, 60)
        and near(image, (10, 40), GREY)
    )


def test_critic_and_report(critic):
    rows = [critic.row(index) for index in range(2)]
    drawn = [critic.drawn_image(row) for row in rows]
    assert drawn[0].tobytes() == drawn[1].tobytes() and is_drawn(drawn[0])
    assert drawn[0].getpixel(BOX[:2]) == GREEN
    assert not drawn[0].getexif().get(0x0112)
    assert torch.equal(critic.image(rows[0]), critic.image(rows[1]))
    assert is_drawn(from_uri(image_uri(drawn[0])))


def test_pages(folder):
    viewer = RecordViewer(open_corpus([str(folder / "r.jsonl")], str(folder)))
    for index in range(2):
        shown = viewer.show(index)
        assert is_drawn(from_uri(shown.image))
        assert (shown.regions[0].left, shown.regions[0].top) == (
            pytest.approx(100 * BOX[0] / SIZE[0]),
            pytest.approx(100 * BOX[1] / SIZE[1]),
        )


@pytest.fixture
def scenes(folder):
    config, root = ScenesConfig(root=str(folder)), ImageRoot(str(folder))
    found = []
    for name in ("turned.jpg", "plain.png"):
        line = {"image": name, "regions": [{"name": "0", "boxes": [list(BOX)], "obj_guess": "cup"}]}
        record, bad = open_scene(line, root, config)
        assert not bad and (record["width"], record["height"]) == SIZE
        found.append(Scene(record, root, config.max_pixels))
    return found


def test_verbalizers(scenes):
    drawn = [scene.drawn([0], line_width=2, image_size=32) for scene in scenes]
    assert drawn[0].tobytes() == drawn[1].tobytes() and is_drawn(drawn[0])
    cuts = [scene.crop(scene.regions[0], 0.0) for scene in scenes]
    assert cuts[0].tobytes() == cuts[1].tobytes() and cuts[0].size == (20, 12)
    assert all(near(cuts[0], place, RED) for place in ((1, 1), (18, 10)))


class Client:
    """Keeps what it is sent."""

    def __init__(self):
        self.sent = []

    def complete(self, requests):
        for request in requests:
            self.sent.append(request)
            yield ChatReply(key=request.key, text="fine")


def test_endpoints(scenes, folder):
    client = Client()
    config = WriterConfig(type="client", client={"backend": "openai", "model": "m"}, image_size=512)
    requests = [
        WriteRequest("whole", "what", scenes[0].read_image(), 0),
        WriteRequest("drawn", "what", scenes[0].drawn([0], line_width=2, image_size=32), 0),
    ]
    assert ChatWriter(client, config).write(requests) == ["fine", "fine"]
    whole, drawn = (
        from_uri(request.messages[0]["content"][0]["image_url"]["url"]) for request in client.sent
    )
    assert whole.size == SIZE and near(whole, (50, 14), RED, 60)
    assert is_drawn(drawn)
    for image in (folder / "turned.jpg", (folder / "turned.jpg").read_bytes()):
        sent = from_uri(image_part(image)["image_url"]["url"])
        assert sent.tobytes() == Image.open(folder / "turned.jpg").convert("RGB").tobytes()
    untouched = (folder / "plain.png").read_bytes()
    _, _, data = image_part(folder / "plain.png")["image_url"]["url"].partition(",")
    assert base64.b64decode(data) == untouched


def test_images_that_are_handed_over(folder):
    model = RegionModel(torch.nn.Identity(), None, None)
    with Image.open(folder / "turned.jpg") as image:
        assert is_drawn(model.draw(image, [BOX]))
