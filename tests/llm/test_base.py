"""Messages with images: what is sent, and what is stored."""

import base64
import json

from chat_requests import replies_by_key
from PIL import Image

from lavis.llm.base import ChatRequest, RankRequest, content_key, image_part


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


def test_keys_of_requests_are_those_of_earlier_versions():
    request = ChatRequest("p", [{"role": "user", "content": "what?"}], seed=3)
    identity = {"backend": "openai", "model": "m"}
    key = content_key(identity, request)
    assert key == "llm_reply-132d370f8bbaaac80768e566d397a772bd5b2a61"
    other = [
        ChatRequest("p", request.messages, seed=3, **more)
        for more in ({"logprobs": 20}, {"logprobs": 5}, {"extra": {"a": 1}})
    ]
    assert len({key, *(content_key(identity, each) for each in other)}) == 4


def test_a_rank_request_is_a_prompt_for_each_document():
    query = [image_part(b"\x89PNG one"), {"type": "text", "text": "which?"}]
    request = RankRequest("p", query, ["a", "b"])
    assert [m["content"][-1]["text"] for m in request.messages] == ["a", "b"]
    assert all(m["content"][:2] == query for m in request.messages)
    assert request.content() == {"path": "rerank", "query": query, "documents": ["a", "b"]}
    assert request.stored()["query"][0]["image_url"]["url"].startswith("blake2b:")
    keys = {content_key({}, RankRequest("p", query, documents, path)) for documents, path in
            ((["a", "b"], "rerank"), (["b", "a"], "rerank"), (["a", "b"], "score"))}  # fmt: skip
    assert len(keys) == 3
