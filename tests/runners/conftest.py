"""The tiny run, as a module for tests and as a script for processes."""

import importlib.util
import logging
import multiprocessing
import sys
from pathlib import Path

import pytest
import torch

from launching import launcher_environments

SCRIPT = Path(__file__).with_name("tiny_run.py")


@pytest.fixture(scope="session")
def tiny():
    if "tiny_run" not in sys.modules:
        spec = importlib.util.spec_from_file_location("tiny_run", SCRIPT)
        module = importlib.util.module_from_spec(spec)
        sys.modules["tiny_run"] = module
        spec.loader.exec_module(module)
    return sys.modules["tiny_run"]


@pytest.fixture(autouse=True)
def one_thread_and_no_launcher(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LAVIS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    for handler in list(logging.getLogger("lavis").handlers):
        logging.getLogger("lavis").removeHandler(handler)
        handler.close()
    logging.getLogger("lavis").setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def forks(tiny):
    """A server that has imported torch once and forks ranks in no time."""
    sys.path.insert(0, str(SCRIPT.parent))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "tiny_run"])
    return context


class Rank:
    """A started rank: its process, and what it wrote to stderr."""

    def __init__(self, process, log):
        self.process, self.log = process, log

    def wait(self, timeout=180):
        """Return exit status and log."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, f"still running: {self.log.read_text()}"
        return self.process.exitcode, self.log.read_text()


@pytest.fixture
def launch(forks, tiny, tmp_path):
    """Start `size` ranks of the tiny run as torchrun would."""
    started = []

    def start(folder, size, **options):
        argv = [str(folder), *(f"{key}={value}" for key, value in options.items())]
        ranks = []
        for place in launcher_environments(size):
            log = tmp_path / f"log-{len(started)}"
            process = forks.Process(target=tiny.run_rank, args=(argv, place, str(log)))
            process.start()
            ranks.append(Rank(process, log))
            started.append(process)
        return ranks

    yield start
    for process in started:
        if process.is_alive():
            process.kill()
            process.join()
