"""What a completion's JSON says, over servers: answers, and why others are none."""

import json

import pytest

from lavis.llm.base import ChatReply
from lavis.llm.endpoint.failures import Problem
from lavis.llm.replies.completion import read_completion

SECRET = "sk-secret"


def read(body):
    text = body if isinstance(body, str) else json.dumps(body)
    return read_completion("k", text, lambda t: t.replace(SECRET, "***"), judge)


def judge(status, body):
    if status == 200:
        owes = "quota" in json.dumps(body)
        return Problem("stopped" if owes else "transient", "quota: of the account")
    kind = "fatal" if status == 401 else "refused" if status == 400 else "transient"
    return Problem(kind, f"HTTP {status}: {body['error']['message']}")


def chat(content="hi", finish="stop", usage=(10, 5), message=(), choice=(), **more):
    body = {"choices": [{"index": 0, "finish_reason": finish,
                         "message": {"role": "assistant", "content": content, **dict(message)},
                         **dict(choice)}], **more}  # fmt: skip
    if usage is not None:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return body


def streamed(*deltas, finish=None, done="data: [DONE]\n\n", usage=None):
    """Return a completion as the events of a stream."""
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    if finish is not None:
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    if usage is not None:
        counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
        chunks.append({"choices": [], "usage": counts})
    return "".join(f"data: {json.dumps(chunk)}\r\n\r\n" for chunk in chunks) + done


THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}


PART = {"type": "text", "text": "hi"}


@pytest.mark.parametrize(
    ("body", "text", "reasoning", "finish"),
    [
        (chat(), "hi", "", "stop"),
        (chat([PART]), "hi", "", "stop"),
        (chat([THINKING, PART]), "hi", "hm", "stop"),  # Mistral
        (chat([{"type": "reasoning", "text": "hm"}, PART, PART]), "hihi", "hm", "stop"),
        (chat([{"text": "hm", "thought": True}, {"text": "hi"}]), "hi", "hm", "stop"),  # Gemini
        (chat(["h", "i"]), "hi", "", "stop"),
        (chat([PART, {"type": "reference", "reference_ids": [1]}]), "hi", "", "stop"),
        (chat(PART), "hi", "", "stop"),
        (chat([{"type": "text", "text": {"value": "hi"}}]), "hi", "", "stop"),
        (chat(message={"reasoning_content": "hm"}), "hi", "hm", "stop"),
        (chat(message={"reasoning": "hm"}), "hi", "hm", "stop"),
        (chat(message={"reasoning": "hm", "reasoning_details": [{"text": "hm"}]}), "hi", "hm",
         "stop"),
        (chat(message={"reasoning_details": [{"type": "reasoning.summary", "summary": "hm"}]}),
         "hi", "hm", "stop"),
        (chat("<think>hm</think>\n\nhi"), "hi", "hm", "stop"),
        (chat("hm</think>hi"), "hi", "hm", "stop"),
        (chat(message={"tool_calls": [], "refusal": None}), "hi", "", "stop"),
        (chat(finish="tool_calls", message={"tool_calls": [{"id": "x"}]}), "hi", "", "tool_calls"),
        (chat(finish=None), "hi", "", "stop"),
        (chat(finish="STOP"), "hi", "", "stop"),
        (chat(finish="stop_sequence"), "hi", "", "stop"),
        (chat(finish="eos"), "hi", "", "stop"),
        (chat(finish="FinishReason.STOP"), "hi", "", "stop"),
        (chat(finish="a new word"), "hi", "", "a_new_word"),
        (chat(finish={"reason": "x"}), "hi", "", "stop"),
        (chat(finish="length"), "hi", "", "length"),
        (chat(finish="MAX_TOKENS"), "hi", "", "length"),
        (chat(finish="model_length"), "hi", "", "length"),
        ({"choices": [{"text": "hi", "finish_reason": "stop"}]}, "hi", "", "stop"),
        ({"choices": [{"message": "hi"}]}, "hi", "", "stop"),
        ({"choices": [{"delta": {"content": "hi"}}]}, "hi", "", "stop"),
        ({"choices": [chat("")["choices"][0], chat()["choices"][0]]}, "hi", "", "stop"),
        ("\ufeff\n\n" + json.dumps(chat()), "hi", "", "stop"),
        (json.dumps(chat("a\nb")).replace("\\n", "\n"), "a\nb", "", "stop"),
        (chat(f"my key is {SECRET}"), "my key is ***", "", "stop"),
        (chat(error=None), "hi", "", "stop"),
        (streamed({"role": "assistant", "content": ""}, {"content": "h"}, {"content": "i"}),
         "hi", "", "stop"),
        (": PROCESSING\n\n" + streamed({"reasoning_content": "h"}, {"reasoning_content": "m"},
                                       {"content": "hi"}, finish="length", done=""),
         "hi", "hm", "length"),
        ("event: message\ndata: " + json.dumps(chat()), "hi", "", "stop"),
        (chat("[content removed]"), "[content removed]", "", "stop"),  # nobody says it is a stub
    ],
)  # fmt: skip
def test_answers_are_read_wherever_servers_put_them(body, text, reasoning, finish):
    reply = read(body)
    assert isinstance(reply, ChatReply) and reply.ok
    assert (reply.text, reply.reasoning, reply.finish_reason) == (text, reasoning, finish)


CUT = "cut off: max_tokens was used up before an answer began; raise max_tokens, or switch"


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        (chat("", "length"), "refused", CUT),
        (chat(None, "length", message={"reasoning_content": "hm"}), "refused", CUT),
        (chat("<think>hm", "length"), "refused", CUT),
        (chat([THINKING], "MAX_TOKENS"), "refused", CUT),
        (chat(""), "transient", "empty reply: the model wrote nothing"),
        (chat(None), "transient", "empty reply"),
        (chat(" \n"), "transient", "empty reply"),
        (chat([]), "transient", "empty reply"),
        (chat("<think>hm"), "transient", "empty reply: the model thought and gave no answer"),
        (chat(None, message={"reasoning": "hm"}), "transient", "empty reply: the model thought"),
        (chat(None, "tool_calls", message={"tool_calls": [{"id": "x"}]}), "transient",
         "empty reply: the model called a tool"),
        (chat(None, "function_call", message={"function_call": {"name": "f"}}), "transient",
         "empty reply: the model called a tool"),
        ({"choices": []}, "transient", "empty reply: the server gave no choices"),
        ({"choices": None, "object": "chat.completion"}, "transient", "empty reply"),
        ({"choices": [], "prompt_filter_results": [
            {"content_filter_results": {"hate": {"filtered": True}}}]}, "refused",
         "content filter: the server flagged the prompt"),
        ({"promptFeedback": {"blockReason": "SAFETY"}}, "refused", "content filter: the prompt"),
        (chat("partly", "content_filter"), "refused", "content filter: the server withheld"),
        (chat("[content removed]", "SAFETY"), "refused", "content filter"),
        (chat("", "RECITATION"), "refused", "content filter"),
        (chat("", "prohibited-content"), "refused", "content filter"),
        (chat(None, message={"refusal": "I can't."}), "refused", "refusal: I can't."),
        (chat([{"type": "refusal", "refusal": "No."}]), "refused", "refusal: No."),
        (chat("No.", "refusal"), "refused", "refusal: No."),
        (chat("par", "error"), "transient", "error in the reply: the model ended with an error"),
        (chat("", "error", choice={"error": {"code": 502, "message": "boom"}}), "transient",
         "HTTP 502: boom"),
        (chat("par", choice={"error": {"code": "x", "message": "boom"}}), "transient",
         "error in the reply: boom"),
        (chat("par", "abort"), "transient", "error in the reply"),
        (chat("par", "insufficient_system_resource"), "transient", "error in the reply"),
        ({"error": {"code": 429, "message": "slow"}}, "transient", "HTTP 429: slow"),
        ({"error": {"code": "401", "message": "key"}}, "fatal", "HTTP 401: key"),
        ({"error": {"code": 400, "message": "bad"}}, "refused", "HTTP 400: bad"),
        ({"error": {"message": f"key {SECRET}"}}, "transient", "error in the reply: key ***"),
        ({"error": {"code": "content_filter", "message": "no"}}, "refused", "content filter: no"),
        ({"error": {"message": "m", "type": "insufficient_quota"}}, "stopped", "quota: of"),
        ({"error": "boom"}, "transient", "error in the reply: boom"),
        ({"error": {"code": 1e400, "message": "odd"}}, "transient", "error in the reply: odd"),
        ([{"error": {"code": 503, "message": "full"}}], "transient", "HTTP 503: full"),
        ({"object": "error", "message": "m", "code": 400}, "refused", "HTTP 400: m"),
        ({"detail": "Not Found"}, "transient", "error in the reply: Not Found"),
        ({"choices": [{"index": 0}]}, "transient", "malformed answer"),
        ({"choices": ["hi"]}, "transient", "malformed answer"),
        (chat(7), "transient", "malformed answer"),
        (chat([7]), "transient", "malformed answer"),
        ({"hello": 1}, "transient", "malformed answer"),
        ([], "transient", "malformed answer"),
        ("7", "transient", "malformed answer"),
        ("", "transient", "malformed answer: the server sent nothing"),
        ("<!DOCTYPE html><title>x", "transient", "malformed answer: a web page came"),
        ("data: {}\n\n", "transient", "malformed answer"),
        (streamed({"content": "par"}, done=""), "transient", "malformed answer"),
        (streamed({"content": "par"}) + 'data: {"error": {"message": "boom"}}\n\n', "transient",
         "error in the reply: boom"),
        (streamed({"content": "par"}, finish="error"), "transient", "error in the reply"),
        (json.dumps(chat())[:-9], "transient", "malformed answer"),
        ("[" * 100_000, "transient", "malformed answer"),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_told_with_its_reason(body, kind, reason):
    problem = read(body)
    assert isinstance(problem, Problem) and problem.kind == kind
    assert problem.reason.startswith(reason), problem.reason
    assert SECRET not in problem.reason


def test_tokens_of_what_is_no_answer_are_counted():
    assert read(chat("", "length", (7, 800))).usage == (7, 800)
    assert read(chat("", usage=None)).usage is None and read(chat("", usage=None)).cost == "unknown"
    assert read({"error": {"code": 429, "message": "slow"}}).cost == "none"


def test_a_stream_that_nobody_asked_for_is_read_with_its_counts():
    reply = read(streamed({"content": "a\u2028"}, {"content": "b"}, finish="stop", usage=(7, 3)))
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == ("a\u2028b", 7, 3)
    assert read(streamed({"content": "par"}, done="", usage=(7, 3))).cost == "unknown"


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4}, (3, 4)),
        ({"input_tokens": 3, "output_tokens": 4}, (3, 4)),
        ({"prompt_tokens": -3, "completion_tokens": None}, (0, 0)),
        ({"prompt_tokens": "3", "completion_tokens": 4.0}, (3, 4)),
        ({"prompt_tokens": float("inf"), "completion_tokens": 4}, (0, 4)),
        (None, (0, 0)),
        ("odd", (0, 0)),
        ([], (0, 0)),
    ],
)
def test_usage_is_read_for_what_it_may_be(usage, counts):
    reply = read({**chat(usage=None), "usage": usage})
    assert (reply.prompt_tokens, reply.completion_tokens) == counts
