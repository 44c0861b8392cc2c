"""The Batch API: files of requests for half the price, answered within a day.

Everything is on disk before it is sent: the file, its id, the job's id. A process that was killed
finds its jobs again and collects them; if it was killed while the server created a job, it searches
the server's list before it creates another.
"""

from __future__ import annotations

import logging
import threading
from typing import ClassVar

from lavis.llm.base import ChatReply, PendingRequest
from lavis.llm.batch.job import Job, unfinished_jobs
from lavis.llm.batch.outbox import MAX_HELD, Outbox
from lavis.llm.batch.server import BatchServer
from lavis.llm.batch.steps import JobSteps
from lavis.llm.config import OpenAIConfig
from lavis.llm.endpoint.failures import Problem
from lavis.llm.endpoint.wire import Connection
from lavis.llm.money.ledger_file import KEPT
from lavis.llm.store import BackendContext

logger = logging.getLogger(__name__)


class BatchBackend:
    """Collects requests in files, submits the files, waits, and reads results by id."""

    keeps_replies: ClassVar[bool] = True

    def __init__(self, config: OpenAIConfig, context: BackendContext) -> None:
        self._config, self._context = config, context
        connection = Connection(config)
        self._server = BatchServer(connection)
        self._outbox = Outbox(config, context, connection)
        self._steps = JobSteps(self._server, self._outbox)
        self._stop = threading.Event()
        self._take_over()

    @property
    def window(self) -> int:
        """Return how many requests may be inside at once; no more while a cap holds many back."""
        batch = self._config.batch
        full = len(self._outbox.held) >= MAX_HELD
        return 0 if full else batch.max_requests * batch.max_jobs

    def submit(self, pending: PendingRequest) -> None:
        """Write one request into the next file, unless a job of an earlier process has it."""
        self._outbox.put(pending)

    def collect(self) -> list[ChatReply]:
        """Submit what is written, and wait until a job is done."""
        box, steps, batch = self._outbox, self._steps, self._config.batch
        while not box.ready:
            box.write_held()
            if box.has_next and len(box.jobs) < batch.max_jobs:
                box.seal()
            if box.ready:
                break
            if not box.jobs:
                box.refuse_held()
                break
            for job in box.jobs[: batch.max_jobs]:
                if box.ending is None:
                    steps.advance(job)
            if box.ending is not None:
                steps.halt(box.ending)
            steps.drop_ended()
            if not box.ready and box.jobs and self._stop.wait(batch.poll_seconds):
                break
        ready, box.ready = box.ready, []
        return ready

    def halt(self) -> None:
        """Send nothing more; the server's jobs are left for the next start."""
        self._steps.halt(Problem("transient", "stopped: left for the next start"))

    def close(self) -> None:
        """Leave the server's jobs running; the next process collects them."""
        self._stop.set()
        self._outbox.discard_next()
        self._server.close()

    def _take_over(self) -> None:
        """Register the requests of unfinished jobs; release reservations without a job.

        Jobs of another server are left alone. A request whose line is damaged is charged in full:
        it may have been sent.
        """
        here = str(self._config.identity.get("server", ""))
        jobs, names, elsewhere = list[Job](), set[str](), set[str]()
        for job in unfinished_jobs(self._outbox.root):
            if job.server not in ("", here):
                logger.warning("%s: a batch job of %s; left alone", job.folder, job.server)
                elsewhere.add(job.name)
                continue
            jobs.append(job)
            for key in job.offsets():
                self._outbox.owner[key] = job.name
                names.add(job.reservation(key))
        self._outbox.jobs = jobs
        ledger, damaged = self._context.account, 0
        ours = {job.name for job in jobs}
        for name in ledger.pending():
            if not name.startswith(KEPT) or name in names:
                continue
            job_name = name.split(":")[1]
            if job_name in ours:
                ledger.forfeit(name)
                damaged += 1
            elif job_name not in elsewhere:
                ledger.cancel(name)  # its file was never handed over
        ledger.adopt(names)
        if damaged:
            logger.warning(
                "%s: %d requests of unfinished batch jobs are damaged; they are counted at the "
                "most that they can have cost",
                self._outbox.root,
                damaged,
            )
        if jobs:
            logger.info("%d batch jobs of an earlier start go on", len(jobs))
