"""A function in place of a model: its replies are read as a server's are, and cost nothing."""

import pytest

from lavis.common.errors import ConfigError
from lavis.llm.base import ChatRequest
from lavis.llm.client import build_client
from lavis.llm.config import read_llm

CODE = """
def answer(messages, request, *, ending="!"):
    text = messages[-1]["content"]
    return "<think>hm</think>" + (text.upper() + ending if text != "nothing" else "")
"""


def run(tmp_path, script, **more):
    config = read_llm({"backend": "scripted", "script": script, **more})
    requests = [ChatRequest(k, [{"role": "user", "content": k}]) for k in ("cat", "nothing")]
    with build_client(config, tmp_path / "state") as client:
        return {reply.key: reply for reply in client.complete(requests)}, client.spent()


def test_replies_are_read_as_those_of_a_server(tmp_path):
    (tmp_path / "mine.py").write_text(CODE)
    replies, spent = run(tmp_path, f"{tmp_path}/mine.py:answer", options={"ending": "?"})
    assert (replies["cat"].text, replies["cat"].reasoning) == ("CAT?", "hm")
    assert replies["nothing"].failure == "refused" and "empty reply" in replies["nothing"].error
    assert spent.requests == 0


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("no_function", "write package.module:function"),
        ("not_there.py:f", "cannot load not_there.py"),
        ("json:speak", "json has no function speak"),
    ],
)
def test_a_function_that_is_not_there_is_named(tmp_path, script, message):
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, script)
