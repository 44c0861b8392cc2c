"""What servers do, and what follows: for the user, in requests, in money, and at the next start.

Each row is run by `tests/llm/test_behaviours.py`: three images, one request each, the fault met
by the second of them or by all; then the server or the run file is mended and the same command
given again. `python tests/helpers/behaviours.py` writes the rows into `projects/lskd/endpoints.md`.

Faults are from public reports and documentation of OpenAI, Azure, OpenRouter, Together, Groq,
DeepSeek, Mistral, Gemini, xAI, Alibaba, vLLM, SGLang, llama.cpp, Ollama and of proxies.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

IMAGES = 3
ONE = 1  # the image that meets a fault which is one request's own
GOOD = {
    "question": "Why is [1] near [0]?",
    "answer": "[1] owns [0].",
    "rationale": "[1] holds the lead of [0].",
}
ITEMS = json.dumps({"items": [GOOD]})
MONEY = 15  # tokens that a good reply costs
PAGE = Path(__file__).resolve().parents[2] / "projects/lskd/endpoints.md"
CLASSES = {
    "again": "Asked again in the same run",
    "left": "Given up for this run, left for the next start",
    "mend": "The run stops: a setting or the key is wrong (status 2)",
    "stop": "The run stops: account, quota or server (status 1)",
    "request": "This request only",
    "simplify": "A parameter that the server does not take",
    "reply": "Replies",
    "caps": "Caps",
}


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """One row.

    Attributes:
        does: what the server does.
        kind: of `CLASSES`.
        reply: to a request that meets the fault: a value that the test server takes, or a function
            of its body and of how often that request was sent.
        times: a request meets it so often; None until the server is mended.
        everyone: all requests meet it, else that of one image.
        mode: `chat` or `batch`.
        script: hooks of the batch server.
        llm: settings of the first start.
        status: exit status of the first start.
        sees: part of what the user reads: the last line, a log line, a reason in `rejects.jsonl`.
        sent: requests of the first start; of a batch, lines of all input files.
        records: of the first start.
        paid: replies among those sent that are counted as billed; None for one of each record.
        unknown: requests counted at the most they can have cost.
        reserved: requests under way, for which as much is set aside.
        estimated: replies whose tokens the server did not count.
        heal: options of the second start, in place of mending the server.
        again: requests of the second start.
        pictures: in the data.
        more: attempts that may be on their way when the run stops.
        rejected: requests without a record that are left; `--retry-rejects` then asks for them.
        dropped: items of no use of replies that have others.
    """

    does: str
    kind: str
    reply: Any = None
    times: int | None = None
    everyone: bool = False
    mode: str = "chat"
    script: dict[str, Any] = field(default_factory=dict)
    llm: dict[str, Any] = field(default_factory=dict)
    status: int = 0
    sees: str = ""
    sent: int = IMAGES
    records: int = IMAGES
    paid: int | None = None
    unknown: int = 0
    reserved: int = 0
    estimated: int = 0
    heal: tuple[str, ...] = ()
    again: int = 0
    pictures: int = IMAGES
    more: int = 0
    rejected: int = 0
    dropped: int = 0

    @property
    def name(self) -> str:
        """Return what tests call the row."""
        return re.sub(r"[^\w]+", "-", f"{self.mode} {self.does}").strip("-")

    def meets(self, image: int, number: int) -> bool:
        """Return whether the n-th request (from 1) about an image meets the fault."""
        if self.reply is None or not (self.everyone or image == ONE):
            return False
        return self.times is None or number <= self.times

    def answer(self, body: dict[str, Any], number: int) -> Any:
        """Return the reply to a request."""
        image = image_of(body)
        if not self.meets(image, number):
            return ITEMS
        return self.reply(body, number) if callable(self.reply) else self.reply


def image_of(body: dict[str, Any]) -> int:
    """Return which image a request is about."""
    return int(re.search(r"image (\d+):", json.dumps(body["messages"]))[1])  # type: ignore[index]


def openai(message: str, code: Any = None, param: Any = None, kind: str = "") -> dict[str, Any]:
    """Return the body of an error as OpenAI writes it."""
    kind = kind or "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def completion(text: Any, finish: Any = "stop", **more: Any) -> dict[str, Any]:
    """Return a completion."""
    message = {"role": "assistant", "content": text, **more.pop("message", {})}
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    return {
        "object": "chat.completion",
        "choices": [{"index": 0, "finish_reason": finish, "message": message}],
        "usage": usage,
        **more,
    }


def page(title: str) -> bytes:
    """Return a page of HTML as proxies send it."""
    return f"<html><head><title>{title}</title></head><body>nginx</body></html>".encode()


class Trick:
    """Something that a server does to the connection itself."""

    def __init__(self, what: Callable[[Any], None]) -> None:
        self.what = what


def _drop(handler: Any) -> None:
    handler.close_connection = True


def _drip(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(40):
        try:
            handler.wfile.write(b" ")
            handler.wfile.flush()
        except OSError:
            break
        time.sleep(0.05)
    handler.close_connection = True


DROP, DRIP = Trick(_drop), Trick(_drip)


def unless(field_name: str, error: Any) -> Callable[[dict[str, Any], int], Any]:
    """Return a reply that is an error where a body has a field."""
    return lambda body, n: error if field_name in body else ITEMS


def _again() -> Iterator[Behaviour]:
    """Yield faults that pass: the second attempt is answered."""
    cases: tuple[tuple[str, Any, str, int], ...] = (
        ("HTTP 408", (408, openai("Request timed out")), "HTTP 408", 0),
        ("HTTP 409", (409, openai("Conflict, try again")), "HTTP 409", 0),
        ("HTTP 425", (425, openai("Too early")), "HTTP 425", 0),
        ("HTTP 429, Retry-After: 0",
         (429, openai("Rate limit reached for tiny", "rate_limit_exceeded"), {"Retry-After": "0"}),
         "HTTP 429", 0),
        ("HTTP 429 without a body", (429, {}), "HTTP 429", 0),
        ("HTTP 429 a minute's rate in words of billing (OpenAI)",
         (429, openai("Rate limit reached: Limit 3 / min. Please try again in 1ms. Visit "
                      "https://x/account/billing to add a payment method.", "rate_limit_exceeded")),
         "HTTP 429", 0),
        ("HTTP 500", (500, openai("The server had an error")), "HTTP 500", 1),
        ("HTTP 502 with a page of HTML", (502, page("502 Bad Gateway")), "HTTP 502", 1),
        ("HTTP 503 overloaded", (503, openai("Overloaded, try again later")), "HTTP 503", 0),
        ("HTTP 504", (504, page("504 Gateway Time-out")), "HTTP 504", 1),
        ("HTTP 524 (Cloudflare)", (524, page("524: A timeout occurred")), "HTTP 524", 1),
        ("HTTP 529 overloaded (Anthropic)", (529, openai("Overloaded")), "HTTP 529", 0),
        ("Retry-After: 1e300", (429, openai("Slow down"), {"Retry-After": "1e300"}),
         "HTTP 429", 0),
        ("HTTP 400 json_validate_failed (Groq)",
         (400, openai("Failed to generate JSON. Please adjust.", "json_validate_failed")),
         "odd generation", 0),
        ("closes the connection without an answer", DROP, "connection", 1),
        ("cuts the answer in the middle", "cut", "connection", 1),
        ("sends a byte at a time", DRIP, "no answer within", 1),
        ("HTTP 200 with a page of HTML", page("Sign in"), "a web page came", 1),
        ("HTTP 200 without a body", b"", "sent nothing", 1),
        ("HTTP 200 with cut JSON", b'{"choices": [{"message": {"cont', "no chat completion", 1),
        ("HTTP 200 with `null`", b"null", "no chat completion", 1),
        ("HTTP 200 with an error in it (OpenRouter)",
         {"error": {"code": 502, "message": "Provider returned error"}}, "Provider returned", 1),
        ("no choices", {**completion(""), "choices": []}, "empty reply", 0),
        ("an empty answer", completion(""), "empty reply", 0),
        ("`finish_reason: error`", completion("Half an ans", "error"), "ended with an error", 0),
    )  # fmt: skip
    for does, reply, sees, unknown in cases:
        slow = {"timeout": 0.3} if reply is DRIP else {}
        billed = isinstance(reply, dict) and "usage" in reply
        yield Behaviour(
            does=does, kind="again", reply=reply, times=1, sees=sees, sent=4, unknown=unknown,
            paid=IMAGES + billed, llm=slow,
        )  # fmt: skip


def _left() -> Iterator[Behaviour]:
    """Yield faults that do not pass in this run and are no ground to stop it."""
    left = {"kind": "left", "status": 1, "sent": 5, "records": 2, "again": 1}
    yield Behaviour(
        does="one picture gives HTTP 500 every time", reply=(500, openai("boom")), sees="HTTP 500",
        unknown=3, **left,
    )  # fmt: skip
    yield Behaviour(
        does="one request gives an unknown HTTP 400", reply=(400, openai("gremlins")),
        sees="gremlins", **{**left, "sent": 4},
    )  # fmt: skip
    yield Behaviour(
        does="one request is cut every time", reply="cut", sees="connection", unknown=3, **left,
    )  # fmt: skip
    yield Behaviour(
        does="one request gives an empty answer every time", reply=completion(""),
        sees="empty reply", paid=5, **left,
    )  # fmt: skip


KEY, MODEL, ADDRESS = "llm.api_key_env", "llm.model", "llm.base_url"


def _mend() -> Iterator[Behaviour]:
    """Yield faults that no request can pass until the run file or the key is mended."""
    cases: tuple[tuple[str, Any, str], ...] = (
        ("HTTP 401 a wrong key", (401, openai("Incorrect API key provided", "invalid_api_key")),
         "look at the environment variable that llm.api_key_env names"),
        ("HTTP 400 a wrong key (xAI)",
         (400, {"code": "x", "error": "Incorrect API key provided"}),
         "look at the environment variable that llm.api_key_env names"),
        ("HTTP 404 no such model",
         (404, openai("The model `tiny` does not exist", "model_not_found")),
         "look at llm.model"),
        ("HTTP 400 no such model (DeepSeek)", (400, openai("Model Not Exist")),
         "look at llm.model"),
        ("HTTP 404 no such path", (404, {"detail": "Not Found"}), "look at llm.base_url, which"),
        ("HTTP 405", (405, {"detail": "Method Not Allowed"}),
         "look at llm.base_url, which"),
        ("HTTP 403 no permission",
         (403, openai("You do not have permission to use this project")),
         "look at llm.api_key_env, llm.base_url and llm.model"),
        ("HTTP 400 pictures are not supported",
         (400, openai("Invalid content type. image_url is only supported by certain models.")),
         "no picture can be sent to this model"),
        ("HTTP 400 max_tokens above the model's limit",
         (400, openai("max_tokens is too large: 800. This model supports at most 512 completion "
                      "tokens", "invalid_value", "max_tokens")), "max_tokens"),
    )  # fmt: skip
    for does, reply, sees in cases:
        yield Behaviour(
            does=does, kind="mend", reply=reply, everyone=True, status=2, sees=sees, sent=1,
            records=0, again=IMAGES,
        )  # fmt: skip


def _stop() -> Iterator[Behaviour]:
    """Yield faults of the account or the whole server."""
    cases: tuple[tuple[str, Any, str], ...] = (
        ("HTTP 429 insufficient_quota (OpenAI)",
         (429, openai("You exceeded your current quota", "insufficient_quota")), "quota"),
        ("HTTP 400 billing_hard_limit_reached (OpenAI)",
         (400, openai("Billing hard limit has been reached", "billing_hard_limit_reached")),
         "Billing hard limit"),
        ("HTTP 402 (DeepSeek)", (402, openai("Insufficient Balance")), "Insufficient Balance"),
        ("HTTP 400 credit balance too low (Anthropic)",
         (400, openai("Your credit balance is too low to access the API")), "credit balance"),
        ("HTTP 403 key limit exceeded (OpenRouter)",
         (403, {"error": {"code": 403, "message": "Key limit exceeded (total limit): your "
                          "credits are used up"}}), "Key limit"),
        ("HTTP 400 Arrearage (Alibaba)",
         (400, openai("Access denied, please make sure your account is in good standing.",
                      "Arrearage")), "good standing"),
        ("HTTP 403 account deactivated",
         (403, openai("Your account has been deactivated", "account_deactivated")), "deactivated"),
    )  # fmt: skip
    for does, reply, sees in cases:
        yield Behaviour(
            does=does, kind="stop", reply=reply, everyone=True, status=1, sees=sees, sent=1,
            records=0, again=IMAGES,
        )  # fmt: skip

    for does, address, sees in (
        (
            "nobody listens at the address",
            "http://127.0.0.1:9/v1",
            "nothing listens at 127.0.0.1:9",
        ),
        ("no such host", "http://server.invalid/v1", "server.invalid:80 is not known"),
    ):
        yield Behaviour(
            does=does, kind="left", status=1, sent=0, records=0, again=IMAGES, sees=sees,
            llm={"base_url": address}, heal=("llm.base_url={url}",),
        )  # fmt: skip
    for does, reply, sees, sent, unknown in (
        ("HTTP 500 for every one of 40 requests", (500, openai("boom")), "boom", 30, 30),
        ("HTTP 400 unknown for every one of 40 requests", (400, openai("gremlins")), "gremlins",
         20, 0),
        ("HTTP 200 with a page of HTML for every one of 40 requests", page("Sign in"),
         "a web page came", 30, 30),
    ):  # fmt: skip
        yield Behaviour(
            does=does, kind="stop", status=1, sent=sent, records=0, everyone=True, reply=reply,
            sees=sees, unknown=unknown, again=40, pictures=40, more=2,
        )  # fmt: skip
    yield Behaviour(
        does="HTTP 429 with a Retry-After of a day", kind="stop", status=1, sent=2, records=1,
        reply=(429, openai("Slow down"), {"Retry-After": "86400"}), again=2,
        sees="longer than llm.max_server_wait",
    )  # fmt: skip


def _request() -> Iterator[Behaviour]:
    """Yield faults that are one request's own: an endpoint's reject, done again when asked to."""
    cases: tuple[tuple[str, Any, str, int], ...] = (
        ("HTTP 400 content_filter (Azure)",
         (400, openai("The response was filtered due to the prompt triggering content management "
                      "policy", "content_filter")), "content filter", 0),
        ("HTTP 403 input flagged (OpenRouter)",
         (403, {"error": {"code": 403, "message": "Your input was flagged for violence",
                          "metadata": {"reasons": ["violence"]}}}), "flagged", 0),
        ("HTTP 400 Content Exists Risk (DeepSeek)", (400, openai("Content Exists Risk")),
         "Content Exists Risk", 0),
        ("HTTP 400 context too long",
         (400, openai("This model's maximum context length is 10 tokens. However, your messages "
                      "resulted in 900 tokens.", "context_length_exceeded", "messages")),
         "maximum context length", 0),
        ("HTTP 413", (413, page("413 Request Entity Too Large")), "413", 0),
        ("HTTP 400 picture refused",
         (400, openai("You uploaded an unsupported image. Please make sure your image is valid",
                      "image_parse_error")), "unsupported image", 0),
        ("`finish_reason: content_filter`", completion("", "content_filter"), "content filter", 1),
        ("a refusal in its own field",
         completion(None, "stop", message={"refusal": "I'm sorry, I can't help with that."}),
         "refusal", 1),
        ("flagged prompt, no choices (Azure)",
         {"choices": [], "prompt_filter_results": [
             {"content_filter_results": {"hate": {"filtered": True, "severity": "high"}}}]},
         "content filter", 0),
    )  # fmt: skip
    for does, reply, sees, billed in cases:
        yield Behaviour(
            does=does, kind="request", reply=reply, sees=sees, records=2, paid=2 + billed,
            rejected=1,
        )  # fmt: skip


def _simplify() -> Iterator[Behaviour]:
    """Yield parameters that a server does not take: dropped or renamed, said once."""
    wrong = "Unsupported value: '{0}' does not support 0.7 with this model."
    for name in ("temperature", "top_p", "seed"):
        yield Behaviour(
            does=f"HTTP 400 {name} not supported", kind="simplify", everyone=True,
            reply=unless(name, (400, openai(wrong.format(name), "unsupported_value", name))),
            sees=f"{name} is left out from now on", sent=4,
        )  # fmt: skip
    yield Behaviour(
        does="HTTP 400 use max_completion_tokens", kind="simplify", everyone=True,
        reply=unless("max_tokens", (400, openai(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.", "unsupported_parameter", "max_tokens"))),
        sees="max_completion_tokens is sent from now on", sent=4,
    )  # fmt: skip
    yield Behaviour(
        does="HTTP 400 no JSON schema", kind="simplify", everyone=True,
        reply=lambda body, n: (400, openai("response_format json_schema is not supported"))
        if body.get("response_format", {}).get("type") == "json_schema" else ITEMS,
        sees="json_object is asked for from now on", sent=4,
    )  # fmt: skip
    yield Behaviour(
        does="HTTP 422 no response_format at all (Mistral's form)", kind="simplify", everyone=True,
        reply=unless("response_format", (422, {"detail": [
            {"loc": ["body", "response_format"], "msg": "Extra inputs are not permitted"}]})),
        sees="none is asked for from now on", sent=5,
    )  # fmt: skip


def _reply() -> Iterator[Behaviour]:
    """Yield replies in odd forms, with and without use."""
    thought = '<think>The user wants {"items": []} of it.</think>'
    good = (
        ("thinks before it answers", completion(thought + ITEMS)),
        ("thinks in a field of its own",
         completion(ITEMS, message={"reasoning_content": "hmm {"})),
        ("content in parts (Mistral)", completion([{"type": "text", "text": ITEMS}])),
        ("a code fence and words around", completion(f"Sure!\n```json\n{ITEMS}\n```\nBye.")),
        ("a bare list", completion(json.dumps([GOOD]))),
        ("a trailing comma", completion(ITEMS[:-1] + ",}")),
        ("extra keys", completion(json.dumps({"items": [{**GOOD, "note": 1}], "model": "x"}))),
        ("an unknown finish_reason", completion(ITEMS, "eos_by_magic")),
        ("no finish_reason", completion(ITEMS, None)),
        ("digits of another script", completion(ITEMS.replace("[1]", "[\u0661]"))),
    )  # fmt: skip
    for does, reply in good:
        yield Behaviour(does=f"answers with {does}" if does[0] != "t" else does, kind="reply",
                        reply=reply)  # fmt: skip
    yield Behaviour(
        does="answers in words, then as asked", kind="reply", times=1,
        reply=lambda body, n: ITEMS if len(body["messages"]) > 2 else completion("It is nice."),
        sent=4, paid=4,
    )  # fmt: skip
    yield Behaviour(
        does="answers with a whole item and cuts the next", kind="reply", dropped=1, sees="cut off",
        reply=completion(ITEMS[:-2] + ', {"question": "Wh', "length"),
    )  # fmt: skip
    bad: tuple[tuple[str, Any, str, int], ...] = (
        ("answers in words, twice", completion("It is nice."), "malformed reply", 4),
        ("refuses in words", completion("I\u2019m sorry, but I can\u2019t help with that."),
         "refusal", 3),
        ("names a region that is not there", completion(ITEMS.replace("[1]", "[7]")),
         "unknown region id: 7", 3),
        ("names a region in words", completion(ITEMS.replace("[1]", "[man]")),
         "not a region: [man]", 3),
        ("thinks until max_tokens", completion("<think>hmm, so", "length"), "cut off", 3),
    )  # fmt: skip
    for does, reply, sees, sent in bad:
        yield Behaviour(does=does, kind="reply", reply=reply, sees=sees, sent=sent, records=2,
                        paid=sent, rejected=1)  # fmt: skip


def _caps() -> Iterator[Behaviour]:
    """Yield what money and its counting do."""
    yield Behaviour(
        does="max_requests is reached", kind="caps", llm={"caps": {"max_requests": 2}}, status=1,
        sees="max_requests (2) is reached", sent=2, records=2, heal=("llm.caps.max_requests=9",),
        again=1,
    )  # fmt: skip
    yield Behaviour(
        does="counts no tokens", kind="caps", reply={**completion(ITEMS), "usage": None},
        paid=2, estimated=1,
    )  # fmt: skip


NO_ROOM = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached for tiny"}
_ALL = {"sent": IMAGES, "records": 0, "again": IMAGES}


def _failed(code: str, message: str, line: int | None = None) -> dict[str, Any]:
    data = [{"code": code, "message": message, "line": line, "param": None}]
    return {"status": "failed", "errors": {"object": "list", "data": data}}


def _first_job(change: dict[str, Any]) -> dict[str, Any]:
    """Return a hook that changes what is said of the first job."""
    return {"look": lambda job, n: {**job, **change} if job["id"] == "batch_0" else None}


def _first_result(change: Callable[[str, list[str]], list[str]]) -> dict[str, Any]:
    """Return a hook that changes the first line of the first job's output."""
    return {
        "lines": lambda kind, lines: [*change(lines[0], lines), *lines[1:]]
        if kind == "output" and len(lines) == IMAGES else lines
    }  # fmt: skip


def _error_line(line: str, error: Any) -> str:
    key = json.loads(line)["custom_id"]
    return json.dumps({"id": "r", "custom_id": key, "response": None, "error": error})


def _batch() -> Iterator[Behaviour]:
    """Yield what servers do about files, jobs and their lines."""
    busy = (429, openai("Rate limit reached", "rate_limit_exceeded"))
    again: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
        ("a line of HTTP 429", {"reply": busy, "times": 1}, {"sent": 4}),
        ("a line of HTTP 500", {"reply": (500, openai("boom")), "times": 1},
         {"sent": 4, "unknown": 1}),
        ("statuses in capitals and unknown ones",
         {"script": {"polls": 4, "look": lambda job, n: {**job, "status": [
             "QUEUED", "sharding", None, "Completed"][min(n, 4) - 1]}}}, {}),
        ("completed before its output file is there",
         {"script": {"look": lambda job, n: {**job, "output_file_id": None} if n < 4 else None}},
         {}),
        ("HTTP 503 while looking",
         {"script": {"look": lambda job, n: (503, openai("busy")) if n == 1 else None}},
         {"sees": "HTTP 503"}),
        ("cuts the upload", {"script": {"upload": lambda n, data: "cut" if n == 1 else None}}, {}),
        ("cuts the output file",
         {"script": {"content": lambda name, n, data: "cut" if n == 1 else None}}, {}),
        ("the input file is not processed yet",
         {"script": {"create": lambda n, body: (400, openai("The file is not processed yet."))
                     if n == 1 else None}}, {"sees": "not processed yet"}),
        ("enqueued token limit, then room", {"script": _first_job(_failed(**NO_ROOM))},
         {"sees": "Enqueued token limit", "sent": 6}),
        ("an answer that is counted and not in the files",
         {"script": _first_result(lambda line, lines: [])},
         {"sees": "answers of the server never came", "sent": 4, "unknown": 1}),
        ("an error line with `boom`",
         {"script": _first_result(lambda line, lines: [_error_line(line, "boom")])},
         {"sent": 4, "unknown": 1}),
        ("expired with a part of it done",
         {"reply": "cut", "times": 1, "script": _first_job(
             {"status": "expired", "request_counts": {"completed": 2, "failed": 0, "total": 3}})},
         {"sent": 4}),
    )  # fmt: skip
    for does, fault, follows in again:
        yield Behaviour(does=does, kind="again", mode="batch", **fault, **follows)
    gone = (404, {"detail": "Not Found"})
    ends: tuple[tuple[str, str, dict[str, Any], dict[str, Any]], ...] = (
        ("left", "cancelled by somebody",
         {"script": {"polls": 99, "look": lambda job, n: {**job, "status": "cancelled",
          "output_file_id": None,
          "request_counts": {"completed": 0, "failed": 0, "total": 3}}}},
         {"sees": "cancelled", "status": 1, **_ALL}),
        ("left", "one line gives HTTP 400 gremlins", {"reply": (400, openai("gremlins"))},
         {"sees": "gremlins", "status": 1, "sent": 4, "records": 2, "again": 1}),
        ("mend", "HTTP 401 at the upload",
         {"script": {"upload": lambda n, data: (401, openai("wrong key", "invalid_api_key"))}},
         {"sees": "llm.api_key_env", "status": 2, **_ALL, "sent": 0}),
        ("mend", "no Batch API", {"script": {"upload": lambda n, data: gone}},
         {"sees": "no Batch API", "status": 2, **_ALL, "sent": 0}),
        ("mend", "HTTP 413 for the file",
         {"script": {"upload": lambda n, data: (413, openai("too large"))}},
         {"sees": "llm.batch.max_bytes", "status": 2, **_ALL, "sent": 0}),
        ("mend", "lines of HTTP 404 no such model",
         {"reply": (404, openai("The model `tiny` does not exist", "model_not_found")),
          "everyone": True}, {"sees": "look at llm.model", "status": 2, **_ALL}),
        ("stop", "HTTP 429 insufficient_quota at the job",
         {"script": {"create": lambda n, body: (429, openai(
             "You exceeded your current quota", "insufficient_quota"))}},
         {"sees": "quota", "status": 1, **_ALL, "sent": 0}),
        ("stop", "a job that fails: billing_hard_limit_reached",
         {"script": {"look": lambda job, n: {**job, **_failed(
             "billing_hard_limit_reached", "Billing hard limit has been reached")}}},
         {"sees": "Billing hard limit", "status": 1, **_ALL}),
        ("stop", "enqueued token limit for ever",
         {"script": {"look": lambda job, n: {**job, **_failed(**NO_ROOM)}}},
         {"sees": "lower llm.batch.max_requests", "status": 1, **_ALL, "sent": 9}),
        ("stop", "does not answer while looking; the job is looked at again",
         {"script": {"look": lambda job, n: (503, openai("down"))}},
         {"sees": "does not answer about batch jobs", "status": 1, "sent": 3, "records": 0,
          "again": 0, "reserved": 3}),
        ("request", "a line of HTTP 400 content_policy_violation",
         {"reply": (400, openai("Rejected by the safety system", "content_policy_violation"))},
         {"sees": "content filter", "records": 2, "rejected": 1}),
        ("request", "a line of HTTP 400 context too long",
         {"reply": (400, openai("maximum context length is 10 tokens",
                                "context_length_exceeded"))},
         {"sees": "maximum context length", "records": 2, "rejected": 1}),
        ("simplify", "lines of HTTP 400 no JSON schema",
         {"reply": lambda body, n: (400, openai("response_format json_schema is not supported"))
          if body.get("response_format", {}).get("type") == "json_schema" else ITEMS,
          "everyone": True}, {"sees": "json_object is asked for from now on", "sent": 6}),
        ("simplify", "lines of HTTP 400 use max_completion_tokens",
         {"reply": unless("max_tokens", (400, openai(
             "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
             "'max_completion_tokens' instead.", "unsupported_parameter", "max_tokens"))),
          "everyone": True}, {"sees": "max_completion_tokens is sent from now on", "sent": 6}),
        ("reply", "a line that refuses in words",
         {"reply": completion("I'm sorry, I can't assist with that.")},
         {"sees": "refusal", "records": 2, "paid": 3, "rejected": 1}),
        ("reply", "a line that thinks until max_tokens",
         {"reply": completion("<think>hmm, so", "length")},
         {"sees": "cut off", "records": 2, "paid": 3, "rejected": 1}),
        ("reply", "a line that is cut with a whole item in it",
         {"reply": completion(ITEMS[:-2] + ', {"question": "Wh', "length")},
         {"sees": "cut off", "dropped": 1}),
        ("caps", "max_requests is reached",
         {"llm": {"caps": {"max_requests": 2}}},
         {"sees": "max_requests (2) is reached", "status": 1, "sent": 2, "records": 2,
          "heal": ("llm.caps.max_requests=9",), "again": 1}),
    )  # fmt: skip
    for kind, does, fault, follows in ends:
        yield Behaviour(does=does, kind=kind, mode="batch", **fault, **follows)


ROWS: tuple[Behaviour, ...] = (
    *_again(), *_left(), *_mend(), *_stop(), *_request(), *_simplify(), *_reply(), *_caps(),
    *_batch(),
)  # fmt: skip


INTRODUCTION = """# What endpoints do, and what follows

For each behaviour of a server: what `generate_qar.py` says (part of it), its exit status, the
requests that it sends, how they are counted against the caps, and what the same command does once
the server, or the run file, is mended. Each row is a test (`tests/llm/test_behaviours.py`, which
this page is made from): three pictures, one request each, `max_attempts: 3`, `concurrency: 1`; one
of the three requests meets the fault, or all. Afterwards all three pictures have their record, and
none was answered twice, but for requests whose answer was lost on its way: those are counted *at
the most* that they can have cost. `verbalize.py` asks through the same client.
"""


def table(rows: tuple[Behaviour, ...] = ROWS) -> str:
    """Return the rows as a page of Markdown, a table for each class."""
    parts = [INTRODUCTION.strip()]
    for kind, title in CLASSES.items():
        chosen = [row for row in rows if row.kind == kind]
        if not chosen:
            continue
        lines = [
            f"## {title}", "",
            "| the server | mode | you see | status | sent | money counted | records | rerun |",
            "|---|---|---|---|---|---|---|---|",
            *(_line(row) for row in chosen),
        ]  # fmt: skip
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _line(row: Behaviour) -> str:
    paid = row.records if row.paid is None else row.paid
    money = f"{paid} as billed"
    money += f", {row.unknown} at the most" if row.unknown else ""
    money += f", {row.reserved} set aside" if row.reserved else ""
    money += f", {row.estimated} estimated" if row.estimated else ""
    who = (
        ""
        if row.pictures > IMAGES
        else " (all)"
        if row.everyone
        else ""
        if row.reply is None
        else " (one of 3)"
    )
    after = f"sends {row.again}" if row.again else "sends 0"
    after += ", `--retry-rejects` 1" if row.rejected else ""
    sees = f"`{row.sees}`" if row.sees else "-"
    sent = f"{row.sent} to {row.sent + row.more}" if row.more else row.sent
    cells = (row.does + who, row.mode, sees, row.status, sent, money, row.records, after)
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    PAGE.write_text(table(), encoding="utf-8")
