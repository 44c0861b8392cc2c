"""The Batch API: files of requests for half the price, answered within a day.

What the server is asked to do is on disk first: the file, its id, the job's id. A process that is
killed at any point finds its jobs again and collects them; one that was killed while the server
made a job looks through the server's list before it makes another.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from lavis.common.refusals import REFUSALS
from lavis.common.storage import write_text
from lavis.llm.base import Ask, ChatReply, ChatRequest
from lavis.llm.batch_job import Job, JobFile, request_line, unfinished_jobs
from lavis.llm.budget import KEPT, BudgetReached
from lavis.llm.config import OpenAIConfig
from lavis.llm.desk import Desk
from lavis.llm.failures import Problem
from lavis.llm.wire import Connection

logger = logging.getLogger(__name__)

STILL_RUNNING = frozenset({"validating", "in_progress", "finalizing", "cancelling"})


class BatchBackend:
    """Collects requests in files, hands files to the server, waits, and reads results by id.

    Args:
        config: the server; `config.batch` the sizes.
        desk: where replies are kept and money is counted.
    """

    keeps_replies: ClassVar[bool] = True

    def __init__(self, config: OpenAIConfig, desk: Desk) -> None:
        self._config, self._desk = config, desk
        self._connection = Connection(config)
        self._root = desk.folder / "batches"
        self._stop = threading.Event()
        self._next = JobFile(self._root)
        self._jobs: list[Job] = list(unfinished_jobs(self._root))
        self._known: set[str] = set()  # keys inside jobs
        self._wanted: set[str] = set()
        self._held: deque[Ask] = deque()  # a cap is in the way until others turn out cheaper
        self._ready: list[ChatReply] = []
        self._failures = 0  # in a row
        self.window = config.batch.max_requests * config.batch.max_jobs
        self._take_over()

    def submit(self, ask: Ask) -> None:
        """Write one request into the next file, unless a job of an earlier process has it."""
        self._wanted.add(ask.content_key)
        if ask.content_key not in self._known:
            self._held.append(ask)
            if len(self._held) == 1:
                self._write_held()

    def collect(self) -> list[ChatReply]:
        """Hand over what is written, and wait until a job is done."""
        while not self._ready:
            self._write_held()
            if self._next.requests and len(self._jobs) < self._config.batch.max_jobs:
                self._seal()
            if self._ready or not self._jobs:
                break
            for job in self._jobs[: self._config.batch.max_jobs]:
                self._advance(job)
            self._jobs = [job for job in self._jobs if job.state != "done"]
            if not self._ready and self._stop.wait(self._config.batch.poll_seconds):
                break
        ready, self._ready = self._ready, []
        return ready

    def close(self) -> None:
        """Leave the server's jobs running; the next process collects them."""
        self._stop.set()
        self._connection.sdk.close()

    def _take_over(self) -> None:
        """Know the requests of unfinished jobs; give back what was reserved for none."""
        names: set[str] = set()
        for job in self._jobs:
            keys = job.offsets()
            self._known.update(keys)
            names.update(map(job.reservation, keys))
        for name in self._desk.ledger.pending():
            if name.startswith(KEPT) and name not in names:
                self._desk.ledger.cancel(name)  # its file was never handed over
        self._desk.ledger.adopt(names)
        if self._jobs:
            logger.info("%d batch jobs of an earlier start go on", len(self._jobs))

    def _write_held(self) -> None:
        while self._held:
            ask = self._held[0]
            try:
                body = self._connection.body(ask.request)
                if not self._write(ask.content_key, body, ask.attempt):
                    return
            except BudgetReached as error:
                self._answer(ChatReply(ask.content_key, error=str(error), failure="budget"))
            self._held.popleft()

    def _write(self, key: str, body: dict[str, Any], attempt: int) -> bool:
        """Reserve and write a line; False where a cap is in the way for now."""
        line, batch = request_line(key, body), self._config.batch
        if not self._next.fits(line, batch.max_requests, batch.max_bytes):
            self._seal()
        request = _request_of(key, body, self._config.token_field)
        bound = self._desk.counter.bound(request)
        name = self._next.job.reservation(key)
        if not self._desk.ledger.reserve(name, bound, request.max_tokens, wait=False):
            return False
        self._next.add(key, line, attempt)
        self._known.add(key)
        return True

    def _seal(self) -> None:
        self._jobs.append(self._next.seal())
        self._next = JobFile(self._root)

    def _advance(self, job: Job) -> None:
        """Take a job one step further; a server in trouble is tried again at the next look."""
        try:
            if job.state == "sealed":
                with open(job.input, "rb") as file:
                    made = self._connection.sdk.files.create(file=file, purpose="batch")
                job.save(file_id=made.id, state="uploaded")
            if job.state == "uploaded":
                self._create(job)
            self._look(job)
            self._failures = 0
        except Exception as error:
            if not self._connection.failed(error):
                raise
            self._fail(job, self._connection.problem_of(error))

    def _create(self, job: Job) -> None:
        found = self._find(job) if job.unsure else None
        if found is None:
            job.unsure = True  # until its id is on disk
            found = self._connection.sdk.batches.create(
                input_file_id=job.file_id,
                endpoint="/v1/chat/completions",
                completion_window=self._config.batch.completion_window,  # type: ignore[arg-type]
                metadata={"lavis_job": job.name},
            ).id
        job.save(batch_id=found, state="created")
        logger.info("batch job %s: %d requests", found, len(job.offsets()))

    def _find(self, job: Job) -> str | None:
        """Return the server's name of a job that an earlier attempt may have made."""
        for batch in self._connection.sdk.batches.list(limit=100):
            if (batch.metadata or {}).get("lavis_job") == job.name:
                return batch.id
            if batch.input_file_id == job.file_id:
                return batch.id
        return None

    def _look(self, job: Job) -> None:
        batch = self._connection.sdk.batches.retrieve(job.batch_id)
        if batch.status in STILL_RUNNING:
            return
        if batch.status == "failed":
            data = (batch.errors.data if batch.errors else None) or []
            reasons = "; ".join(self._connection.hide(item.message or "") for item in data[:3])
            self._end(job, Problem("fatal", f"batch job {job.batch_id} failed: {reasons[:300]}"))
            return
        results = []
        for name, file_id in (
            ("output", batch.output_file_id),
            ("error", batch.error_file_id),
        ):
            if file_id:
                path = job.folder / f"{name}.jsonl"
                with self._connection.sdk.files.with_streaming_response.content(file_id) as answer:
                    answer.stream_to_file(path)
                self._redact(path)
                results.append(path)
        self._read_results(job, results, batch.status)

    def _read_results(self, job: Job, results: list[Path], status: str) -> None:
        """Store replies by id; what failed or never came goes back into the queue."""
        offsets = job.offsets()
        with open(job.input, "rb") as file:
            for key, outcome in self._outcomes(results):
                if key not in offsets:
                    continue
                body = job.body(file, offsets.pop(key))
                if isinstance(outcome, ChatReply):
                    request = _request_of(key, body, self._config.token_field)
                    self._known.discard(key)
                    self._answer(
                        self._desk.finish(key, outcome, request, job.reservation(key)),
                    )
                else:
                    self._again(job, key, body, outcome)
            for key, offset in offsets.items():
                lost = Problem("transient", f"no line for it came back (batch {status})")
                self._again(job, key, job.body(file, offset), lost)
        job.save(state="done")

    def _outcomes(self, results: list[Path]) -> Iterator[tuple[str, ChatReply | Problem]]:
        for path in results:
            with open(path, encoding="utf-8") as file:
                for line in file:
                    try:
                        item = json.loads(line)
                        key, answer = item["custom_id"], item.get("response") or {}
                    except REFUSALS:
                        continue  # counts as a line that never came
                    status = answer.get("status_code") or 500
                    content = answer.get("body")
                    if status == 200 and not item.get("error"):
                        yield key, self._connection.read(key, json.dumps(content))
                    else:
                        problem = item.get("error") or content
                        yield key, self._connection.status_problem(status, problem, {})

    def _again(self, job: Job, key: str, body: dict[str, Any], problem: Problem) -> None:
        """Queue a line that failed once more, or answer with the reason."""
        self._desk.failed(job.reservation(key), problem)
        self._known.discard(key)
        if key not in self._wanted:
            return
        attempt = job.attempts.get(key, 0) + 1
        if problem.kind == "simplify" and self._connection.simplify(body):
            body.pop("response_format")
        elif problem.kind != "transient" or attempt >= self._config.max_attempts:
            kind: Any = "refused" if problem.kind == "simplify" else problem.kind
            self._answer(ChatReply(key, error=problem.reason, failure=kind))
            return
        request = _request_of(key, body, self._config.token_field)
        self._held.append(Ask(key, request, attempt))

    def _end(self, job: Job, problem: Problem) -> None:
        """Give a job up: the server did none of it."""
        for key in job.offsets():
            self._desk.ledger.cancel(job.reservation(key))
            self._known.discard(key)
            kind: Any = problem.kind
            self._answer(ChatReply(key, error=problem.reason, failure=kind))
        job.save(state="done")

    def _fail(self, job: Job, problem: Problem) -> None:
        """Note that the server did not answer about a job."""
        self._failures += 1
        logger.warning("batch job %s: %s", job.name, problem.reason)
        if problem.kind == "transient" and self._failures < self._config.max_attempts:
            self._stop.wait(problem.retry_after or 0)
            return
        kind: Any = "transient" if problem.kind == "transient" else "fatal"
        for key in job.offsets():  # the job stays on disk for the next start
            self._answer(ChatReply(key, error=problem.reason, failure=kind))

    def _answer(self, reply: ChatReply) -> None:
        if reply.key in self._wanted:
            self._wanted.discard(reply.key)
            self._ready.append(reply)

    def _redact(self, path: Path) -> None:
        """Take the key out of a server's file, should it be in there."""
        text = path.read_text(encoding="utf-8", errors="replace")
        clean = self._connection.hide(text)
        if clean != text:
            write_text(path, clean)


def _request_of(key: str, body: dict[str, Any], token_field: str) -> ChatRequest:
    return ChatRequest(
        key=key,
        messages=body["messages"],
        max_tokens=body[token_field],
        temperature=body.get("temperature"),
        top_p=body.get("top_p"),
        seed=body.get("seed"),
        response_format=body.get("response_format"),
    )
