"""Files and batch jobs of a scripted server, and what goes wrong with them, hook by hook."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# (status, body[, headers]), bytes of a body with status 200, "cut", or a function of the handler
Reply = Any


@dataclass
class BatchScript:
    """What a server does about files and jobs; a hook returns None for what a good one does.

    Attributes:
        counts: report `request_counts`.
        polls: the look at which a job ends.
        upload: (n, content) -> reply to the n-th upload, from 1; the file is not kept.
        create: (n, body) -> reply to the n-th job; it is not made.
        made: job -> what is said of a job that was made.
        look: (job, n) -> what is said at the n-th look at it.
        content: (name of the file, n, its bytes) -> reply to the n-th download of it.
        lines: (`output` or `error`, lines) -> the lines of a result file.
        listed: jobs -> reply to a listing.
    """

    counts: bool = True
    polls: int = 2
    upload: Callable[[int, bytes], Reply] = lambda n, content: None
    create: Callable[[int, dict], Reply] = lambda n, body: None
    made: Callable[[dict], Reply] = lambda job: None
    look: Callable[[dict, int], Reply] = lambda job, n: None
    content: Callable[[str, int, bytes], Reply] = lambda name, n, data: None
    lines: Callable[[str, list[str]], list[str]] = lambda kind, lines: lines
    listed: Callable[[list[dict]], Reply] = lambda jobs: None
    number: Counter = field(default_factory=Counter)

    def count(self, *name: str) -> int:
        """Return how often something happened, this time included."""
        self.number[name] += 1
        return self.number[name]


def finish(server: Any, job: dict, completion: Callable[[str], dict]) -> None:
    """Answer all lines of a job's input: answers and errors in two files, in reverse order.

    The server's `answer` decides: a text or completion, (status, body), or `cut`, which leaves the
    line out.
    """
    files: dict[str, list[str]] = {"output": [], "error": []}
    inputs = server.files[job["input_file_id"]].decode().splitlines()
    for item in map(json.loads, reversed(inputs)):
        text = json.dumps(item["body"]["messages"][-1]["content"])
        server.asked[text] += 1
        answer = server.answer(item["body"], server.asked[text])
        if isinstance(answer, tuple):
            files["error"].append(result_line(item["custom_id"], answer[0], answer[1]))
        elif answer != "cut":
            server.finished[text] += 1
            body = completion(answer) if isinstance(answer, str) else answer
            files["output"].append(result_line(item["custom_id"], 200, body))
    if server.script.counts:
        done, bad = len(files["output"]), len(files["error"])
        job["request_counts"] = {"completed": done, "failed": bad, "total": len(inputs)}
    for kind, lines in files.items():
        name = f"file-{kind}-{job['id']}"
        lines = server.script.lines(kind, lines)
        server.files[name] = "".join(line + "\n" for line in lines).encode()
        if lines:
            job[f"{kind}_file_id"] = name
    job["status"] = "completed"


def result_line(key: str, status: int, body: Any) -> str:
    """Return a line of a result file."""
    response = {"status_code": status, "request_id": "q", "body": body}
    return json.dumps({"id": "r", "custom_id": key, "response": response, "error": None})
