"""Commands in processes as torchrun starts them, which may be killed before a unit of the journal.

As a script it imports once what the commands need, and forks a process for each of them.
"""

from __future__ import annotations

import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
KILLED = -signal.SIGKILL  # exit status
Job = dict[str, Any]


def launcher_environments(size: int) -> list[dict[str, str]]:
    """Return what torchrun tells each of `size` processes; nothing where there is but one."""
    if size == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(size)}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]


def main_of(script: str) -> Callable[[list[str]], int]:
    """Return `main` of a script, which takes its flags and returns its exit status."""
    return runpy.run_path(str(ROOT / script))["main"]


def jobs_of(script: str, arguments: Sequence[str], *, size: int = 1, die_at: int = 0) -> list[Job]:
    """Return the processes of one run, each of which dies before its unit `die_at`, if above 0."""
    given = {"script": str(ROOT / script), "arguments": list(arguments), "die_at": die_at}
    return [{**given, "environment": place} for place in launcher_environments(size)]


def run_steps(
    steps: Sequence[Sequence[Job]],
    imports: Sequence[str],
    *,
    folder: Path = ROOT,
    environment: Mapping[str, str] | None = None,
) -> tuple[list[list[int]], str]:
    """Run steps one after the other, the jobs of a step side by side.

    Args:
        imports: modules, or `module:name`, that the first process imports for all.
        folder: where commands are run.

    Returns:
        Exit statuses by step, and what was written to stderr.
    """
    own = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    own |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **(environment or {})}
    done = subprocess.run(
        [sys.executable, __file__, *imports],
        input=json.dumps(steps),
        cwd=folder,
        env=own,
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def _run(job: Job) -> int:
    os.environ.update(job["environment"])
    if job["die_at"]:
        _die_before(job["die_at"])
    sys.argv = [job["script"], *job["arguments"]]
    try:
        runpy.run_path(job["script"], run_name="__main__")
    except SystemExit as stop:
        return stop.code or 0
    except BaseException:
        traceback.print_exc()
        return 9
    return 0


def _die_before(unit: int) -> None:
    from lavis.common.storage.journal import Journal

    append, begun = Journal.append, []

    def counted(self: Journal, *given: Any) -> None:
        begun.append(given)
        if len(begun) == unit:
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, *given)

    Journal.append = counted


def _fork(job: Job) -> int:
    child = os.fork()
    if not child:
        status = _run(job)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return child


def _main(imports: Sequence[str]) -> None:
    for name in imports:
        pkgutil.resolve_name(name)
    statuses = []
    for step in json.load(sys.stdin):
        children = [_fork(job) for job in step]
        waited = [os.waitpid(child, 0)[1] for child in children]
        statuses.append([os.waitstatus_to_exitcode(status) for status in waited])
    print(json.dumps(statuses))


if __name__ == "__main__":
    _main(sys.argv[1:])
