"""One file of batched requests and its state, on disk before it is sent to the server."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import time
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

from pydantic import ConfigDict, NonNegativeInt, TypeAdapter

from lavis.common.errors import DECODE_REFUSALS, REFUSALS, brief
from lavis.common.storage.atomic import AtomicFile, sync_folder, write_json

logger = logging.getLogger(__name__)

State = Literal["sealed", "uploaded", "created", "done"]
FailureKind = Literal["call", "job", "results"]


@dataclass
class JobRecord:
    """The fields of a job that `job.json` holds.

    Attributes:
        state: `sealed`: the file is complete. `uploaded`: the server has it. `created`: the server
            works on it. `done`: its results are stored.
        file_id, batch_id: the server's names of the uploaded file and of the job.
        account: hash of the key that it was sent with.
        part: how often lines that the server rejects were removed from the input.
        absences: starts that waited in vain for results which the server reports.
        attempts: content key -> earlier attempts, if any.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", strict=True)

    state: State = "sealed"
    file_id: str = ""
    batch_id: str = ""
    server: str = ""
    account: str = ""
    part: NonNegativeInt = 0
    absences: NonNegativeInt = 0
    attempts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.state == "created" and not self.batch_id:
            raise ValueError("no batch_id")


@dataclass(kw_only=True)
class Job(JobRecord):
    """State of one file, written by `save`.

    Attributes:
        folder: holds the input, `job.json`, and any results.
        unsure: the server may know the job already; look before creating it again.
        failures: how many of a kind in a row: calls, refusals of the job, incomplete results.
        adopted: created by an earlier start; `left`: for the next one.
        rest_until: monotonic seconds before which nothing is done about it.
    """

    folder: Path
    unsure: bool = False
    failures: Counter[FailureKind] = field(default_factory=Counter)
    adopted: bool = False
    left: bool = False
    rest_until: float = 0.0
    progress: str = ""
    _offsets: dict[str, int] | None = None

    @property
    def name(self) -> str:
        """Return our name of the job, which the server keeps as metadata."""
        return self.folder.name

    @property
    def input(self) -> Path:
        """Return the file of requests."""
        return self.folder / (f"input-{self.part}.jsonl" if self.part else "input.jsonl")

    def reservation(self, key: str) -> str:
        """Return the name of a request's reservation in the ledger."""
        return f"batch:{self.name}:{key}"

    def save(self, **changes: Any) -> None:
        """Change fields, then write them: on return they survive a power cut."""
        for name, value in changes.items():
            setattr(self, name, value)
        content = {each.name: getattr(self, each.name) for each in fields(JobRecord)}
        write_json(self.folder / "job.json", content, indent=None)

    def offsets(self) -> dict[str, int]:
        """Return content key -> byte offset of its line in the input, without damaged lines."""
        if self._offsets is None:
            self._offsets = {}
            position = 0
            with contextlib.suppress(FileNotFoundError), open(self.input, "rb") as file:
                for line in file:
                    key = _key_of(line)
                    if key:
                        self._offsets[key] = position
                    position += len(line)
        return self._offsets

    def body(self, key: str) -> dict[str, Any]:
        """Return the body of a request."""
        return read_body(self.input, self.offsets()[key])

    def leave_out(self, keys: Collection[str]) -> None:
        """Rewrite the input without some lines; it has to be uploaded again."""
        old, left = self.input, dict[str, int]()
        self.part += 1
        with open(old, "rb") as source, AtomicFile(self.input) as file:
            for key, offset in self.offsets().items():
                if key not in keys:
                    source.seek(offset)
                    left[key] = file.tell()
                    file.write(source.readline())
        self._offsets, self.adopted = left, False
        self.save(state="sealed" if left else "done", file_id="", batch_id="")


class JobFile:
    """The input of the next job, while requests are added to it."""

    def __init__(self, root: Path) -> None:
        name = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        self._offsets: dict[str, int] = {}
        self.job = Job(folder=root / name, _offsets=self._offsets)
        self.bytes = 0
        self._file: BinaryIO | None = None

    def fits(self, line: bytes, max_requests: int, max_bytes: int) -> bool:
        """Return whether a line may be added; the first always may."""
        within = len(self._offsets) < max_requests and self.bytes + len(line) <= max_bytes
        return within or not self._offsets

    def add(self, key: str, line: bytes, attempt: int) -> None:
        """Append a line."""
        if self._file is None:
            self.job.folder.mkdir(parents=True)
            self._file = open(self.job.input, "wb")
        self._file.write(line)
        self._offsets[key] = self.bytes
        self.bytes += len(line)
        if attempt:
            self.job.attempts[key] = attempt

    def seal(self, server: str, account: str) -> Job:
        """Flush the file to disk and return its job."""
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self.job.save(state="sealed", server=server, account=account)
        sync_folder(self.job.folder.parent)
        return self.job

    def discard(self) -> None:
        """Remove the file, which no server has received."""
        if self._file is not None:
            self._file.close()
            self.job.input.unlink(missing_ok=True)
            self.job.folder.rmdir()


def request_line(key: str, body: dict[str, Any]) -> bytes:
    """Return one line of a batch file."""
    item = {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(item).encode("ascii") + b"\n"


def read_body(path: Path, offset: int) -> dict[str, Any]:
    """Return the request body of the line at a byte offset of an input."""
    with open(path, "rb") as file:
        file.seek(offset)
        return json.loads(file.readline())["body"]


def unfinished_jobs(root: Path) -> Iterator[Job]:
    """Yield unfinished jobs of earlier processes, oldest first.

    A folder without `job.json` was never sealed, so the server has not received it. If that file
    is damaged, the job is searched for by its name at the server.
    """
    for path in sorted(root.glob("*/job.json")):
        try:
            record = TypeAdapter(JobRecord).validate_json(path.read_bytes())
            job = Job(folder=path.parent, **asdict(record), unsure=True, adopted=True)
        except DECODE_REFUSALS as error:
            logger.warning(
                "%s: damaged (%s); the server is asked for a job of this name", path, brief(error)
            )
            job = Job(folder=path.parent, state="uploaded", unsure=True, adopted=True)
            parts = [each.stem.removeprefix("input-") for each in path.parent.glob("input-*.jsonl")]
            job.part = max((int(part) for part in parts if part.isdecimal()), default=0)
        if job.state != "done":
            yield job


def _key_of(line: bytes) -> str:
    """Return the content key of a line of the input; empty where it is damaged."""
    try:
        item = json.loads(line)
        return item["custom_id"] if isinstance(item["body"]["messages"], list) else ""
    except REFUSALS:
        return ""
