"""Messages with images: what is sent, and what is stored."""

import base64
import json

from chat_requests import replies_by_key
from PIL import Image

from lavis.llm.base import ChatRequest, image_part


def test_an_image_over_the_limit_of_pixels_is_sent_as_it_is(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    Image.new("RGB", (9, 9)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)  # over twice of it Pillow refuses
    sent = image_part(path)["image_url"]["url"]
    assert sent == f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def test_images_are_sent_whole_and_stored_as_hashes(serve, settings, tmp_path):
    server = serve()
    part = image_part(b"\x89PNG" + bytes(100))
    message = {"role": "user", "content": [{"type": "text", "text": "what?"}, part]}
    replies_by_key(settings(server), tmp_path, [ChatRequest("p", [message])])
    assert server.bodies[0]["messages"][0]["content"][1] == part
    stored = [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    entry = json.loads(stored[0].read_bytes().split(b"\n", 1)[1][16:])
    url = entry["request"]["messages"][0]["content"][1]["image_url"]["url"]
    assert url.startswith("blake2b:") and entry["reply"]["text"] == "hello"
