"""The tiny run, as a module for tests and as a script for processes."""

import importlib.util
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("tiny_run.py")
ROOT = SCRIPT.parents[2]


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


@pytest.fixture
def launch():
    """Start `size` ranks of the tiny run as torchrun would; returns the processes."""
    started = []

    def start(folder, size, **options):
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        if size > 1:
            with socket.socket() as sock:
                sock.bind(("127.0.0.1", 0))
                port = str(sock.getsockname()[1])
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(size)}
        command = [sys.executable, str(SCRIPT), str(folder)]
        command += [f"{key}={value}" for key, value in options.items()]
        for rank in range(size):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if size > 1 else {}
            process = subprocess.Popen(
                command, env=env | own, stderr=subprocess.PIPE, text=True, cwd=ROOT
            )
            started.append(process)
        return started[-size:]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()
