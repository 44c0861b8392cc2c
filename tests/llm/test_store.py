"""Replies that are kept and served again, and those that are not."""

import json

import pytest

from lavis.llm.base import ChatReply, ChatRequest, TokenLogprobs
from lavis.llm.client import build_client
from lavis.llm.config import read_llm
from lavis.llm.money.ledger import read_totals
from lavis.llm.store import ReplyStore


def chat(content="hi", finish="stop", usage=(10, 5), message=(), choice=(), **more):
    body = {"choices": [{"index": 0, "finish_reason": finish,
                         "message": {"role": "assistant", "content": content, **dict(message)},
                         **dict(choice)}], **more}  # fmt: skip
    if usage is not None:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return body


def test_only_whole_answers_are_stored(tmp_path):
    store = ReplyStore(tmp_path)
    for place, finish in enumerate(["stop", "length", "content_filter", "MAX_TOKENS", "new word"]):
        store.put(f"llm_reply-{place:040}", ChatReply("k", "text", finish), None)
    store.put(f"llm_reply-{5:040}", ChatReply("k", " "), None)
    store.put(f"llm_reply-{6:040}", ChatReply("k", "text", failure="refused"), None)
    assert [store.has(f"llm_reply-{n:040}") for n in range(7)] == [1, 0, 0, 0, 1, 0, 0]
    store.put("llm_reply-00a", ChatReply("k", "hi", reasoning="hm", prompt_tokens=3), None)
    found = store.get("llm_reply-00a")
    assert (found.text, found.reasoning, found.prompt_tokens) == ("hi", "hm", 3) and found.cached


@pytest.mark.parametrize(
    "entry",
    [
        b"\xff", b"{", b"[]", b"{}", b'{"reply": []}', b'{"reply": {"text": "hi"}}', b"7", b"null",
        b'{"reply": {"text": 7, "finish_reason": "stop", "prompt_tokens": 1, '
        b'"completion_tokens": 1}}',
        b'{"reply": {"text": "hi", "finish_reason": "stop", "prompt_tokens": "x", '
        b'"completion_tokens": 1}}',
        *(json.dumps({"reply": {"text": text, "finish_reason": finish, "prompt_tokens": 1,
                                "completion_tokens": 1}}).encode()
          for text, finish in [("", "stop"), ("cu", "length"), ("<think>hm", "stop"),
                               ("x", "content_filter"), ("x", "error"), ("No.", "refusal")]),
    ],
)  # fmt: skip
def test_entries_that_are_no_answers_are_not_served(tmp_path, entry):
    store = ReplyStore(tmp_path)
    store._cache.put("llm_reply-00", entry)
    assert store.get("llm_reply-00") is None and not store.has("llm_reply-00")


def test_an_answer_of_an_earlier_version_is_served_without_its_thought(tmp_path):
    store = ReplyStore(tmp_path)
    entry = {"text": "<think>hm</think>hi", "finish_reason": "stop", "prompt_tokens": 1,
             "completion_tokens": 9}  # fmt: skip
    store._cache.put("llm_reply-00", json.dumps({"reply": entry}).encode())
    found = store.get("llm_reply-00")
    assert (found.text, found.reasoning) == ("hi", "hm")


LISTED = (TokenLogprobs("Yes", -0.25, (("Yes", -0.25), ("No", -1.5))),)


def test_entries_without_logprobs_are_those_of_earlier_versions(tmp_path):
    request = ChatRequest("p", [{"role": "user", "content": "what?"}], seed=3)
    store = ReplyStore(tmp_path)
    store.put("llm_reply-00a", ChatReply("k", "hi", prompt_tokens=3, reasoning="hm"), request)
    assert store._cache.get("llm_reply-00a") == (
        b'{"reply": {"text": "hi", "finish_reason": "stop", "prompt_tokens": 3, '
        b'"completion_tokens": 0, "reasoning": "hm"}, "request": {"messages": [{"role": "user", '
        b'"content": "what?"}], "max_tokens": 512, "temperature": 1.0, "top_p": 1.0, "seed": 3, '
        b'"response_format": null}}'
    )


def test_logprobs_are_kept_and_their_answer_may_be_cut(tmp_path):
    store = ReplyStore(tmp_path)
    cut = ChatReply("k", "Yes, the", "length", logprobs=LISTED)
    store.put("llm_reply-00a", cut, None)
    assert store.get("llm_reply-00a").logprobs == LISTED
    for place, reply in enumerate(
        [ChatReply("k", "Yes", "length", logprobs=()), ChatReply("k", '{"a": ', logprobs=LISTED)]
    ):
        store.put(f"llm_reply-00b{place}", reply, None)
        assert not store.has(f"llm_reply-00b{place}")
    damaged = {"text": "hi", "finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 1}
    for logprobs in (7, [7], [["Yes"]], [["Yes", "x", []]]):
        entry = {"reply": {**damaged, "logprobs": logprobs}}
        store._cache.put("llm_reply-00c", json.dumps(entry).encode())
        assert store.get("llm_reply-00c") is None


def completed(at, settings, folder, texts, **more):
    config = read_llm(settings(at, **more))
    with build_client(config, folder) as client:
        requests = [ChatRequest(text, [{"role": "user", "content": text}]) for text in texts]
        return {reply.key: reply for reply in client.complete(requests)}


def test_two_servers_with_one_name_for_their_models_share_no_reply(serve, settings, tmp_path):
    one, other = serve(lambda body, n: "one"), serve(lambda body, n: "other")
    for server, text in ((one, "one"), (other, "other"), (one, "one")):
        reply = completed(server, settings, tmp_path / "run", ["q"])["q"]
        assert reply.text == text
    assert one.asked.total() == other.asked.total() == 1
    # the same server at another address is named
    moved = completed(other, settings, tmp_path / "run", ["q"], server="mine")["q"]
    assert completed(one, settings, tmp_path / "run", ["q"], server="mine")["q"].text == "other"
    assert moved.text == "other" and other.asked.total() == 2 and one.asked.total() == 1


@pytest.mark.parametrize(
    ("body", "failure", "sent", "again"),
    [
        (chat("hi"), "", 1, 0),
        (chat("<think>hm</think>hi"), "", 1, 0),
        (chat("hi", "length"), "", 1, 1),  # handed over, not kept
        (chat('{"items": [{"question": "q", "ans'), "", 1, 1),  # cut JSON that nobody calls cut
        (chat("", "length", (3, 800)), "refused", 1, 1),
        (chat("hi", "content_filter"), "refused", 1, 1),
        (chat(""), "transient", 3, 3),
        (chat("par", "error"), "transient", 4, 4),
        ({"error": {"code": 502, "message": "full"}}, "transient", 4, 4),
    ],
)  # fmt: skip
def test_only_answers_are_kept_and_what_is_none_is_paid_as_counted(
    serve, settings, tmp_path, body, failure, sent, again
):
    server = serve(lambda asked, n: (200, body, {}))
    for requests in (sent, sent + again):
        reply = completed(server, settings, tmp_path / "run", ["q"], max_attempts=4)["q"]
        assert (reply.failure, server.asked.total()) == (failure, requests)
    totals = read_totals(tmp_path / "run")
    assert totals.requests == sent + again
    if body.get("usage"):
        assert totals.completion_tokens == totals.requests * body["usage"]["completion_tokens"]
