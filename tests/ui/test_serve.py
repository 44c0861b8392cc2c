"""Flags that name a corpus, and ports that cannot be had."""

import socket

import pytest

from lavis.common.errors import ConfigError
from lavis.ui.serve import HOST, check_ready, named_corpus, page_parser


def test_flags_open_a_corpus(world):
    path = world.write([world.record(0), world.record(1)])
    parser = page_parser("Label.")
    args = parser.parse_args([path, "--image-root", str(world.root), "--port", "7999"])
    assert len(named_corpus(args)) == 2 and args.port == 7999
    with pytest.raises(SystemExit):
        parser.parse_args([path])


def test_a_port_that_is_taken_is_named():
    pytest.importorskip("gradio", reason="pages need Gradio")
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port {port}: "):
            check_ready(port)
    check_ready(None)
    with pytest.raises(ConfigError, match="--port 99999: "):
        check_ready(99999)
