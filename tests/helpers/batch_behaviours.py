"""What goes wrong with files and batch jobs: a table of behaviours and of what follows from each.

Every case asks for q0, q1, q2 in one file. An answer counts 15 tokens; a request whose outcome
nobody knows counts 54: 34 for the longest prompt of its bytes, 20 for the longest reply.
"""

import json
from dataclasses import dataclass

TEXTS = ("q0", "q1", "q2")
GOOD, LOST = 15, 54
NOT_YET = (400, {"error": {"code": "x", "message": "The file is not processed yet."}})
GONE = (404, {"error": {"message": "No such File object: file-x"}})
ROOM = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached for tiny"}


def refused(code, message, line=None):
    data = [{"code": code, "message": message, "line": line, "param": None}]
    return {"status": "failed", "errors": {"object": "list", "data": data}}


def error_line(key, error, response=None):
    return json.dumps({"id": "r", "custom_id": key, "response": response, "error": error})


def key_of(line):
    return json.loads(line)["custom_id"]


def body_of(line):
    return json.loads(line)["response"]["body"]


def counting(done, bad, **more):
    """Have the end of the first job said with counts of its own."""
    counts = {"request_counts": {"completed": done, "failed": bad, "total": 3}}
    return lambda job, n: job | counts | more if n > 1 and job["id"] == "batch_0" else None


def only(text, reply):
    """Give one text a reply of its own the first time it is asked."""
    return lambda body, n: reply if body["messages"][-1]["content"] == text and n == 1 else "fine"


@dataclass
class Case:
    """A behaviour and what follows from it.

    Attributes:
        says: for each request `ok` or what is wrong; or how the run ends.
        sent: (jobs made, lines in them) by the first start.
        tokens: counted by then.
        unknown: requests among them of unknown cost.
        again: (jobs, lines) made by the second start, the server being well.
        total: tokens counted in the end.
    """

    script: dict
    says: str = "ok ok ok"
    sent: tuple = (1, 3)
    tokens: int = 3 * GOOD
    unknown: int = 0
    again: tuple = (0, 0)
    total: int = 3 * GOOD
    answer: object = None
    heals: bool = True


CASES = {
    # statuses
    "status in capitals and other spellings": Case(
        {"look": lambda job, n: job | {"status": "In Progress" if n < 3 else "COMPLETED"}}
    ),
    "unknown statuses, none, null": Case(
        {"polls": 6, "look": lambda job, n: job | {
            "status": [None, "queued", "QUEUED", None, ["x"], "sharding", "completed"][min(n, 6)]
        }}
    ),
    "no status at all": Case(
        {"polls": 3, "look": lambda job, n: None if n > 2 else {"id": job["id"]}}
    ),
    "completed before its output file": Case(
        {"look": lambda job, n: job | {"output_file_id": None} if n < 4 else None}
    ),
    "completed, its output file never named": Case(
        {"look": lambda job, n: job | {"output_file_id": None}},
        says="output file is not there " * 3, tokens=3 * LOST,
    ),
    "empty name of an error file": Case(
        {"look": lambda job, n: job | {"error_file_id": ""}},
    ),
    # reading results
    "content not ready at first": Case(
        {"content": lambda name, n, data: (404, {"error": {"message": "not ready"}}) if n < 3
         else None}
    ),
    "content conflict at first": Case(
        {"content": lambda name, n, data: (409, {"error": {"message": "busy"}}) if n < 3 else None}
    ),
    "content gone": Case(
        {"content": lambda name, n, data: GONE},
        says="cannot be read " * 3, tokens=3 * LOST,
    ),
    "connection cut in the content": Case(
        {"content": lambda name, n, data: "cut" if n < 3 else None}
    ),
    "last line torn at first": Case(
        {"content": lambda name, n, data: data[:-40] if n < 3 else None}
    ),
    "last line torn for ever": Case(
        {"content": lambda name, n, data: data[:-40] if name.endswith("batch_0") else None},
        sent=(2, 4), tokens=3 * GOOD + LOST, unknown=1, total=3 * GOOD + LOST,
    ),
    "a line lacks that the server counts as done": Case(
        {"lines": lambda kind, lines: lines[1:] if len(lines) == 3 else lines},
        sent=(2, 4), tokens=3 * GOOD + LOST, unknown=1, total=3 * GOOD + LOST,
    ),
    "a line lacks and nothing is counted": Case(
        {"counts": False, "lines": lambda kind, lines: lines[1:] if len(lines) == 3 else lines},
        sent=(2, 4), tokens=3 * GOOD + LOST, unknown=1, total=3 * GOOD + LOST,
    ),
    "odd spelling of files": Case(
        {"content": lambda name, n, data: b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n\r\n")}
    ),
    "lines twice, of others, without id, no objects": Case(
        {"lines": lambda kind, lines: ["", *lines, *lines, lines[0].replace(key_of(lines[0]), "x"),
         '{"response": {}}', "[1]", "7", '"boom"', "{", "null"] if lines else lines}
    ),
    "status as text": Case(
        {"lines": lambda kind, lines: [line.replace("200,", '"200",') for line in lines]}
    ),
    "no envelope around the completion": Case(
        {"lines": lambda kind, lines: [
            json.dumps({"custom_id": key_of(line), "response": body_of(line)}) for line in lines
        ]}
    ),
    # error lines
    **{
        f"error line {name}": Case(
            {"lines": lambda kind, lines, error=error, response=response: [
                error_line(key_of(lines[0]), error, response), *lines[1:]
            ] if kind == "output" and len(lines) == 3 else lines,
             "look": counting(2, 1)},
            sent=(2, 4), tokens=3 * GOOD + LOST, unknown=1, total=3 * GOOD + LOST,
        )
        for name, error, response in (
            ("boom", "boom", None),
            ("as a list", ["boom", 1], None),
            ("as a number", 7, None),
            ("beside an answer", {"oh": "no"}, {"status_code": 200, "body": None}),
            ("with an odd status", "boom", {"status_code": "bad", "body": []}),
            ("with text for an answer", None, "boom"),
        )
    },
    "a null response": Case(
        {"lines": lambda kind, lines: [error_line(key_of(lines[0]), None), *lines[1:]]
         if kind == "output" and len(lines) == 3 else lines,
         "look": counting(2, 1)},
        sent=(2, 4),
    ),
    "busy lines": Case(
        {}, answer=only("q1", (429, {"error": {"message": "rate limit"}})), sent=(2, 4),
    ),
    "a line refused by moderation": Case(
        {}, answer=lambda body, n: (400, {"error": {"code": "content_policy_violation",
        "message": "content_policy"}}) if "q1" in str(body) else "fine",
        says="ok content ok", tokens=2 * GOOD, total=2 * GOOD, again=(1, 1), heals=False,
    ),
    "schema not supported": Case(
        {}, answer=lambda body, n: (400, {"error": {"message": "response_format not supported"}})
        if body.get("response_format", {}).get("type") == "json_schema" else "fine",
        sent=(2, 6),
    ),
    # ends other than complete
    "expired with part of it": Case(
        {"lines": lambda kind, lines: lines[:1] if len(lines) == 3 else lines,
         "look": counting(1, 0, status="expired")},
        sent=(2, 5),
    ),
    "expired, said line by line": Case(
        {"lines": lambda kind, lines: [lines[0], *(error_line(key_of(line), {"code":
         "batch_expired", "message": "not executed"}) for line in lines[1:])]
         if len(lines) == 3 else lines,
         "look": counting(1, 2, status="EXPIRED")},
        sent=(2, 5),
    ),
    "cancelled by somebody": Case(
        {"lines": lambda kind, lines: lines[:1],
         "look": counting(1, 0, status="canceled")},
        says="cancelled cancelled ok", tokens=GOOD, again=(1, 2),
    ),
    "cancelled before it began": Case(
        {"look": lambda job, n: {**job, "status": "cancelled", "output_file_id": None,
         "request_counts": {"completed": 0, "failed": 0, "total": 3}}},
        says="cancelled " * 3, tokens=0, again=(1, 3),
    ),
    # failed jobs
    "enqueued token limit, then room": Case(
        {"look": lambda job, n: job | refused(**ROOM) if job["id"] == "batch_0" else None},
        sent=(2, 6),
    ),
    "enqueued token limit for ever": Case(
        {"look": lambda job, n: job | refused(**ROOM)},
        says="EndpointStopped: batch job failed: Enqueued token limit reached for tiny; lower llm",
        sent=(3, 9), tokens=0, again=(1, 3),
    ),
    "enqueued token limit as HTTP 429": Case(
        {"create": lambda n, body: (429, {"error": ROOM}) if n < 3 else None},
    ),
    "billing limit": Case(
        {"look": lambda job, n: job | refused("billing_hard_limit_reached", "Billing hard limit")},
        says="EndpointStopped", tokens=0, again=(1, 3),
    ),
    "no quota at the making": Case(
        {"create": lambda n, body: (429, {"error": {"code": "insufficient_quota"}})},
        says="EndpointStopped", sent=(0, 0), tokens=0, again=(1, 3),
    ),
    "no such model": Case(
        {"look": lambda job, n: job | refused("model_not_found", "no such model: tiny", 1)},
        says="ConfigError", tokens=0, again=(1, 3),
    ),
    "a named line with an unknown code": Case(
        {"look": lambda job, n: job | refused("odd", "bad line", 2)
         if job["id"] == "batch_0" else None},
        says="ok invalid_line:_bad_line ok", sent=(2, 5), tokens=2 * GOOD, again=(1, 1),
    ),
    "an invalid line that is named": Case(
        {"look": lambda job, n: job | refused("invalid_json_line", "bad line", 2)
         if job["id"] == "batch_0" else None},
        says="ok invalid_line:_bad_line ok", sent=(2, 5), tokens=2 * GOOD, again=(1, 1),
    ),
    "failed for no reason": Case(
        {"look": lambda job, n: job | {"status": "FAILED", "errors": None}},
        says="EndpointStopped: batch job failed: no reason", sent=(3, 9), tokens=0, again=(1, 3),
    ),
    "failed once, odd errors": Case(
        {"look": lambda job, n: job | {"status": "failed", "errors": "boom"}
         if job["id"] == "batch_0" else None},
        sent=(2, 6),
    ),
    # files and jobs that are refused, cut, gone
    "file not processed yet": Case({"create": lambda n, body: NOT_YET if n < 3 else None}),
    "file not to be found yet": Case({"create": lambda n, body: GONE if n == 1 else None}),
    "file gone": Case(
        {"create": lambda n, body: GONE if body["input_file_id"] == "file-0" else None}
    ),
    "file never found": Case(
        {"create": lambda n, body: GONE}, says="EndpointStopped: HTTP 404", sent=(0, 0), tokens=0,
        again=(1, 3),
    ),
    "job gone": Case(
        {"look": lambda job, n: GONE if job["id"] == "batch_0" else None},
        sent=(2, 6), tokens=3 * GOOD + 3 * LOST, unknown=3, total=3 * GOOD + 3 * LOST,
    ),
    "upload received in part": Case(
        {"upload": lambda n, content: (200, {"id": "file-x", "bytes": 10}) if n == 1 else None}
    ),
    "upload cut": Case({"upload": lambda n, content: "cut" if n == 1 else None}),
    "upload answered oddly": Case(
        {"upload": lambda n, content: [b"<html>", b"{}", None][min(n, 3) - 1]}
    ),
    "no Batch API": Case(
        {"upload": lambda n, content: (404, {"detail": "Not Found"})},
        says="ConfigError: no Batch API", sent=(0, 0), tokens=0, again=(1, 3),
    ),
    "file too large for the server": Case(
        {"upload": lambda n, content: (413, {"error": {"message": "too large"}})},
        says="ConfigError: batch file too large: lower llm.batch.max_bytes", sent=(0, 0), tokens=0,
        again=(1, 3),
    ),
    "a wrong key": Case(
        {"upload": lambda n, content: (401, {"error": {"message": "wrong key"}})},
        says="ConfigError", sent=(0, 0), tokens=0, again=(1, 3),
    ),
    # a server in trouble
    "trouble at looks": Case(
        {"look": lambda job, n: (503, {"error": {"message": "busy"}}) if n in (2, 3) else None}
    ),
    "looks that are no JSON": Case({"look": lambda job, n: b"<html>" if n < 3 else None}),
    "dead at looks": Case(
        {"look": lambda job, n: (503, {"error": {"message": "down"}})},
        says="EndpointStopped: the server does not answer about batch jobs", tokens=3 * LOST,
    ),
}  # fmt: skip
