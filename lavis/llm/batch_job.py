"""One file of batched requests and what became of it, on disk before the server hears of it."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

from lavis.common.storage import sync_folder, write_json

State = Literal["sealed", "uploaded", "created", "done"]


@dataclass
class Job:
    """State of one file; `save` brings it to the disk.

    Attributes:
        folder: holds `input.jsonl`, `job.json`, and results once there are any.
        state: `sealed`: the file is whole. `uploaded`: the server has it. `created`: the server
            works on it. `done`: its results are stored.
        file_id: the server's name of the uploaded file.
        batch_id: the server's name of the job.
        attempts: content key -> times it was sent before, where it was.
        unsure: the server may know the job already; look before making it again.
    """

    folder: Path
    state: State = "sealed"
    file_id: str = ""
    batch_id: str = ""
    attempts: dict[str, int] = field(default_factory=dict)
    unsure: bool = False

    @property
    def name(self) -> str:
        """Return our name of the job, which the server keeps as metadata."""
        return self.folder.name

    @property
    def input(self) -> Path:
        """Return the file of requests."""
        return self.folder / "input.jsonl"

    def reservation(self, key: str) -> str:
        """Return the name of a request's reservation in the ledger."""
        return f"batch:{self.name}:{key}"

    def save(self, **changes: Any) -> None:
        """Change fields, then write them: on return they survive a power cut."""
        for name, value in changes.items():
            setattr(self, name, value)
        content = {k: v for k, v in asdict(self).items() if k not in ("folder", "unsure")}
        write_json(self.folder / "job.json", content, indent=None)

    def offsets(self) -> dict[str, int]:
        """Return content key -> byte where its line of the input begins."""
        found: dict[str, int] = {}
        position = 0
        with open(self.input, "rb") as file:
            for line in file:
                found[json.loads(line)["custom_id"]] = position
                position += len(line)
        return found

    def body(self, file: BinaryIO, offset: int) -> dict[str, Any]:
        """Return the request body of the line at a byte of the open input."""
        file.seek(offset)
        return json.loads(file.readline())["body"]


class JobFile:
    """The input of the next job, while requests are added to it."""

    def __init__(self, root: Path) -> None:
        name = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        self.job = Job(root / name)
        self.requests = self.bytes = 0
        self._file: BinaryIO | None = None

    def fits(self, line: bytes, max_requests: int, max_bytes: int) -> bool:
        """Return whether a line may be added; the first always may."""
        within = self.requests < max_requests and self.bytes + len(line) <= max_bytes
        return within or not self.requests

    def add(self, key: str, line: bytes, attempt: int) -> None:
        """Append a line."""
        if self._file is None:
            self.job.folder.mkdir(parents=True)
            self._file = open(self.job.input, "wb")
        self._file.write(line)
        self.requests += 1
        self.bytes += len(line)
        if attempt:
            self.job.attempts[key] = attempt

    def seal(self) -> Job:
        """Bring the file to the disk and return its job."""
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self.job.save(state="sealed")
        sync_folder(self.job.folder.parent)
        return self.job


def request_line(key: str, body: dict[str, Any]) -> bytes:
    """Return one line of a batch file."""
    item = {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(item).encode("ascii") + b"\n"


def unfinished_jobs(root: Path) -> Iterator[Job]:
    """Yield jobs of earlier processes that are not done, in the order in which they were made.

    A folder without `job.json` was never sealed, so the server has not heard of it.
    """
    for path in sorted(root.glob("*/job.json")):
        job = Job(path.parent, **json.loads(path.read_text(encoding="utf-8")), unsure=True)
        if job.state != "done":
            yield job
