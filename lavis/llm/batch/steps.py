"""The next step of each batch job: upload, create, wait, collect, or give up.

What the server may have done is never repeated unseen: the outcome of a request is read from the
job's files; if they do not say, the request is charged at its bound first.
"""

from __future__ import annotations

import logging
import math
import time
from typing import Literal

from lavis.llm.base import ChatReply
from lavis.llm.batch.job import FailureKind, Job
from lavis.llm.batch.outbox import Outbox
from lavis.llm.batch.results import ResultCounts, count_results, outcome_of, read_lines
from lavis.llm.batch.server import BatchServer, BatchState, BatchTrouble, has_no_room
from lavis.llm.endpoint.failures import Cost, Problem

logger = logging.getLogger(__name__)

SMALLER = "lower llm.batch.max_requests or llm.batch.max_jobs, or wait for the account's other jobs"
# Codes by which a server tells that a line is at fault, whenever it is sent.
_LINE_CODES = frozenset({"invalid_json_line", "duplicate_custom_id", "url_mismatch"})
_MAX_PARTS = 20  # times that lines which the server does not take are left out of one file
_NO_LISTS = frozenset({400, 404, 405, 501})  # of servers that list no jobs


class JobSteps:
    """Advances unfinished jobs in order; a failure of one does not affect the others."""

    def __init__(self, server: BatchServer, outbox: Outbox) -> None:
        self._server, self._outbox = server, outbox
        self._config = outbox.config
        self._served = False  # whether any result came back

    def advance(self, job: Job) -> None:
        """Take a job as far as it goes now."""
        if time.monotonic() < job.rest_until:
            return
        try:
            self._step(job)
            job.failures["call"] = 0
        except BatchTrouble as trouble:
            self._trouble(job, trouble)

    def drop_ended(self) -> None:
        """Forget jobs that are done or left; those that wait for room may try again."""
        box = self._outbox
        going = [job for job in box.jobs if job.state != "done" and not job.left]
        if len(going) < len(box.jobs):
            for job in going:
                job.rest_until = 0.0 if job.rest_until == math.inf else job.rest_until
        box.jobs = going

    def halt(self, problem: Problem) -> None:
        """Give up: jobs that the server has stay on disk for the next start."""
        for job in self._outbox.jobs:
            if job.state in ("sealed", "uploaded") and not job.unsure:
                self._outbox.drop(job)
        self._outbox.jobs = []
        self._outbox.end(problem)

    def _step(self, job: Job) -> None:
        if job.state == "sealed":
            if job.adopted:  # the server has not heard of it
                self._request_again(job, "not sent before", cost="unsent", counted=False)
                return
            job.save(file_id=self._server.upload(job.input), state="uploaded")
        if job.state == "uploaded":
            self._create(job)
        if job.state == "created":
            self._look(job)

    def _create(self, job: Job) -> None:
        batch_id = None
        if job.unsure:
            try:
                batch_id = self._server.find(job.file_id, job.name)
            except BatchTrouble as trouble:
                if trouble.status not in _NO_LISTS:
                    raise
                self._lost(job, f"the server may have made it, and lists no jobs: {trouble}")
                return
            if batch_id is None and job.adopted:
                self._request_again(job, "not made before", cost="unsent", counted=False)
                return
        if batch_id is None:
            job.unsure = True  # until its id is on disk
            try:
                window = self._config.batch.completion_window
                batch_id = self._server.create(job.file_id, window, job.name)
            except BatchTrouble as trouble:
                job.unsure = not 400 <= trouble.status < 500 or trouble.status in (408, 409)
                raise
        job.save(batch_id=batch_id, state="created")
        job.unsure = False
        logger.info("batch job %s: %d requests", batch_id, len(job.offsets()))

    def _look(self, job: Job) -> None:
        state = self._server.look(job.batch_id)
        self._log_progress(job, state)
        if not state.end:
            job.failures["results"] = 0
            return
        if state.end == "failed" and not state.completed and not state.files.get("output"):
            self._failed(job, state)
            return
        trouble, paths = None, []
        for name, file_id in state.files.items():
            path = job.folder / f"{name}.jsonl"
            fault = self._server.download(file_id, path)
            if fault is not None and fault.problem.ends_run and fault.status != 404:
                raise fault
            trouble = trouble or fault
            paths.append(path)
        counts = count_results(paths, job.offsets())
        unknown = counts.unknown(state)
        if not counts.missing or not (unknown or counts.broken or trouble):
            self._collect(job, state, counts, 0)
            return
        why = _what_lacks(state, counts, unknown, trouble)
        if self._may_retry(job, "results", why):
            return
        if not job.absences and unknown and (trouble or "output" not in state.files):
            job.save(absences=job.absences + 1)
            self._leave(job, why)
        else:
            logger.warning("batch job %s: %s", job.batch_id, why)
            self._collect(job, state, counts, unknown)

    def _collect(self, job: Job, state: BatchState, counts: ResultCounts, unknown: int) -> None:
        """Store replies by id, queue the rest again; `unknown` missing ones are charged in full."""
        self._served = self._served or bool(counts.answered)
        if counts.strange or counts.repeated:
            logger.warning(
                "batch job %s: %d lines for requests that it does not have, %d beyond the first",
                *(job.batch_id, counts.strange, counts.repeated),
            )
        seen: set[str] = set()
        paths = [job.folder / f"{name}.jsonl" for name in state.files]
        again = state.end != "cancelled"  # somebody wanted it to end
        for line in read_lines(paths):
            if line is None or line.key not in job.offsets() or line.key in seen:
                continue
            if not line.is_answer and line.key in counts.answered:
                continue
            seen.add(line.key)
            outcome = outcome_of(line, self._outbox.connection, job.body(line.key))
            if isinstance(outcome, ChatReply):
                self._outbox.finish(job, line.key, outcome)
            else:
                now = again or outcome.cost != "unsent"
                self._outbox.again(job, line.key, outcome, now=now)
        self._make_up(job, state, counts, unknown)
        job.save(state="done")

    def _make_up(self, job: Job, state: BatchState, counts: ResultCounts, unknown: int) -> None:
        """Request again what has no line, the most expensive of them charged."""

        def reserved(key: str) -> tuple[float, int]:
            amount = self._outbox.context.account.reservation(job.reservation(key))
            return amount.cost, amount.tokens

        missing = sorted(counts.missing, key=reserved, reverse=True)
        if unknown:
            logger.warning(
                "batch job %s: %d answers of the server never came; they are counted at the most "
                "that they can have cost, and asked for again",
                *(job.batch_id, unknown),
            )
        for number, key in enumerate(missing):
            if number < unknown:
                problem = Problem("transient", "lost: its answer never came", cost="unknown")
            else:
                problem = Problem("transient", f"stopped: batch {state.end}", cost="unsent")
            self._outbox.again(job, key, problem, now=state.end != "cancelled")

    def _failed(self, job: Job, state: BatchState) -> None:
        """Handle a job of which the server did nothing."""
        job.unsure = job.adopted = False
        keys = list(job.offsets())
        named = {keys[e.line - 1]: e for e in state.errors if 1 <= e.line <= len(keys)}
        reasons = "; ".join(dict.fromkeys(error.message for error in state.errors)) or "no reason"
        reason = f"batch job failed: {reasons[:300]}"
        problems = [self._server.line_problem(error) for error in state.errors]
        ending = next((problem for problem in problems if problem.ends_run), None)
        codes = " ".join(error.code for error in state.errors)
        if has_no_room(f"{reason} {codes}"):
            job.save(state="uploaded", batch_id="")
            self._no_room(job, reason)
        elif ending is not None:
            self._outbox.drop(job)
            self._outbox.ending = ending
        elif named and job.part < _MAX_PARTS:
            for key, error in named.items():
                problem = self._server.line_problem(error, job.body(key))
                if problem.kind != "simplify":
                    known = problem.kind == "refused" or error.code in _LINE_CODES
                    kind: Literal["refused", "transient"] = "refused" if known else "transient"
                    problem = Problem(kind, f"invalid line: {error.message}", cost="unsent")
                self._outbox.again(job, key, problem, now=problem.kind == "simplify")
            job.leave_out(set(named))
        else:
            job.save(state="sealed", file_id="", batch_id="")
            self._not_taken(job, reason)

    def _trouble(self, job: Job, trouble: BatchTrouble) -> None:
        """Note a failed call, and decide whether it ends the job, the run, or nothing."""
        problem, status = trouble.problem, trouble.status
        if has_no_room(problem.reason):
            self._no_room(job, problem.reason)
        elif job.state == "sealed" and status in (404, 405, 501):
            reason = f"no Batch API at this server: set llm.mode to sync ({problem.reason})"
            self._outbox.ending = Problem("fatal", reason)
        elif job.state == "sealed" and status == 413:
            reason = f"batch file too large: lower llm.batch.max_bytes ({problem.reason})"
            self._outbox.ending = Problem("fatal", reason)
        elif problem.ends_run and status not in (404, 410):
            self._outbox.ending = problem
        elif status in (0, 408, 429) or status >= 500:
            self._not_reached(job, problem)
        elif job.state == "created":
            self._unknown_job(job, trouble)
        else:
            self._not_taken(job, problem.reason)

    def _not_reached(self, job: Job, problem: Problem) -> None:
        """Wait; a server that is gone for all jobs ends the run."""
        least = min(problem.retry_after or 0.0, self._config.max_server_wait)
        if self._may_retry(job, "call", problem.reason, least):
            return
        jobs = self._outbox.jobs[: self._config.batch.max_jobs]
        others = [other for other in jobs if other is not job and other.rest_until < math.inf]
        if any(not other.failures["call"] for other in others):
            self._leave(job, problem.reason)
        else:
            reason = f"the server does not answer about batch jobs: {problem.reason}"
            self._outbox.ending = Problem("stopped", reason)

    def _not_taken(self, job: Job, reason: str) -> None:
        """Submit a job again, then as a new one, before giving it up; nothing of it was done."""
        if self._may_retry(job, "job", reason):
            if job.failures["job"] >= self._config.max_attempts // 2:  # its file may be gone
                job.save(state="sealed", file_id="")
        elif self._served:
            self._request_again(job, reason, cost="unsent", now=False)
        else:  # nothing works so far
            self._outbox.ending = Problem("stopped", reason)

    def _no_room(self, job: Job, reason: str) -> None:
        """Wait for own jobs to end, or for a while if none runs."""
        if any(other.state == "created" for other in self._outbox.jobs if other is not job):
            logger.info("batch job %s waits for others to end: %s", job.name, reason)
            job.rest_until = math.inf
        elif not self._may_retry(job, "job", reason):
            self._outbox.ending = Problem("stopped", f"{reason}; {SMALLER}")

    def _unknown_job(self, job: Job, trouble: BatchTrouble) -> None:
        """Handle a job that the server had and no longer knows or shows."""
        if self._may_retry(job, "results", str(trouble)):
            return
        same_key = job.account in ("", self._outbox.connection.key_hash(job.name))
        if job.absences or (same_key and trouble.status in (404, 410)):
            self._lost(job, f"the server does not know it: {trouble}")
            return
        job.save(absences=job.absences + 1)
        hint = "" if same_key else "; it was made with another key"
        self._leave(job, f"{trouble}{hint}")

    def _lost(self, job: Job, why: str) -> None:
        """Charge a job that cannot be recovered at its bound, and request all of it again."""
        logger.warning(
            "batch job %s: %s; its %d requests are counted at the most that they can have cost, "
            "and asked for again",
            *(job.batch_id or job.name, why, len(job.offsets())),
        )
        self._request_again(job, f"lost: {why}", cost="unknown")

    def _request_again(
        self, job: Job, reason: str, *, cost: Cost, counted: bool = True, now: bool = True
    ) -> None:
        problem = Problem("transient", reason, cost=cost)
        for key in list(job.offsets()):
            self._outbox.again(job, key, problem, counted=counted, now=now)
        job.save(state="done")

    def _leave(self, job: Job, reason: str) -> None:
        job.left = True
        logger.warning(
            "batch job %s: %s; left for the next start", job.batch_id or job.name, reason
        )
        self._outbox.leave(job, f"stopped: batch job left for the next start: {reason}")

    def _may_retry(self, job: Job, kind: FailureKind, reason: str, least: float = 0.0) -> bool:
        """Leave a job alone for a while, longer after each failure in a row; False at the last."""
        job.failures[kind] += 1
        times = job.failures[kind]
        if times >= self._config.max_attempts:
            return False
        low, high = self._config.min_retry_wait, self._config.max_retry_wait
        rest = max(
            self._config.batch.poll_seconds, min(high, low * 2.0 ** min(times - 1, 60)), least
        )
        job.rest_until = time.monotonic() + rest
        name = job.batch_id or job.name
        logger.warning("batch job %s: %s; trying again in %.1f s", name, reason, rest)
        return True

    def _log_progress(self, job: Job, state: BatchState) -> None:
        """Log what changed about a job."""
        done = (state.completed or 0) + (state.failed or 0)
        text = f"{state.word or 'no status'}, {done} of {state.total or len(job.offsets())} done"
        if text == job.progress:
            return
        job.progress = text
        unknown = "" if state.is_known else " (an unknown status: it still runs)"
        level = logging.INFO if state.is_known else logging.WARNING
        logger.log(level, "batch job %s: %s%s", job.batch_id, text, unknown)


def _what_lacks(
    state: BatchState, counts: ResultCounts, unknown: int, trouble: BatchTrouble | None
) -> str:
    """Return why results are incomplete, in one line."""
    if trouble is not None:
        return f"its results cannot be read: {trouble}"
    if "output" not in state.files and unknown:
        return f"{state.word}, but its output file is not there yet"
    return (
        f"{len(counts.missing)} of its requests have no line in its files, {unknown} of them done "
        f"as the server counts; {counts.broken} lines cannot be read"
    )
