"""Without a network: stored replies are read, others are counted by the price table."""

import pytest

from lavis.llm.base import ChatReply, ChatRequest, RankRequest, content_key
from lavis.llm.config import read_llm
from lavis.llm.offline import NOT_STORED, OfflineClient, message_text
from lavis.llm.store import ReplyStore

URL = "data:image/png;base64,AAAA"


@pytest.fixture
def config(tmp_path):
    def make(**more):
        node = {"backend": "openai", "model": "m", "chars_per_token": 4.0}
        return read_llm({**node, "cache_dir": str(tmp_path / "cache"), **more})

    return make


def request(text, key="a", **more):
    return ChatRequest(key, [{"role": "user", "content": text}], max_tokens=8, **more)


def test_stored_replies_are_read_and_others_are_counted(config, tmp_path):
    llm = config(prices={"m": {"input": 2.0, "output": 10.0}})
    client = OfflineClient(llm)
    assert not list(tmp_path.iterdir())
    store = ReplyStore(llm.cache_dir)
    store.put(content_key(llm.identity, request("b")), ChatReply("x", "yes"), request("b"))
    texts = ["x" * 400, "b", "y" * 800]
    replies = list(client.complete(request(text, key=str(n)) for n, text in enumerate(texts)))
    assert [reply.key for reply in replies] == ["0", "1", "2"]
    assert [(r.ok, r.text, r.error) for r in replies] == [
        (False, "", NOT_STORED),
        (True, "yes", ""),
        (False, "", NOT_STORED),
    ]
    counts = dict(client.counts)
    prompt = counts.pop("prompt_tokens")
    assert prompt == pytest.approx(100 + 200 + 2 * 4, abs=2)
    assert counts == {
        "requests": 3,
        "stored_replies": 1,
        "requests_to_send": 2,
        "completion_tokens_at_most": 16,
    }
    assert client.cost_at_most(client.counts) == round((prompt * 2 + 160) / 1e6, 4)
    assert client.method == "4 characters a token" and client.asked == []


def test_without_a_price_there_is_no_cost(config):
    assert OfflineClient(config()).cost_at_most({"prompt_tokens": 9}) is None


def test_requests_may_be_kept_in_place_of_counted(config):
    client = OfflineClient(config(), keep=True)
    (reply,) = client.complete([request("a")])
    assert client.asked == [(request("a"), reply)] and not client.counts


def test_the_text_of_a_request_names_its_images():
    parts = [{"type": "image_url", "image_url": {"url": URL}}, {"type": "text", "text": "Is it?"}]
    second = {"role": "assistant", "content": "Answer:"}
    one = ChatRequest("a", [{"role": "user", "content": parts}, second])
    assert message_text(one) == "<image>\nIs it?\nAnswer:"
    assert message_text(RankRequest("a", parts[1:], ["d", "e"])) == "Is it?\nd\nIs it?\ne"
