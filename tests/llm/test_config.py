"""Settings of a client: what is refused, and what replies depend on."""

import pytest
from chat_requests import replies_by_key

from lavis.common.errors import ConfigError
from lavis.llm.base import ChatRequest
from lavis.llm.client import build_client
from lavis.llm.config import read_llm

SECRET = "sk-test-very-secret-0123456789"


def ask(text, **more):
    return ChatRequest(key=text, messages=[{"role": "user", "content": text}], **more)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"api_key_env": SECRET}, "write the NAME of an environment variable"),
        ({"api_key": SECRET}, "api_key: unknown key; did you mean 'api_key_env'"),
        ({"base_url": f"https://me:{SECRET}@host/v1"}, "no user, password or query"),
        ({"caps": {"max_cost": 1.0}}, "caps.max_cost needs the price of 'tiny'"),
        ({"backend": "opnai"}, "unknown language-model backend 'opnai'; did you mean 'openai'"),
        ({"concurrency": 0}, "concurrency: 0 found, expected greater than or equal to 1"),
    ],
)
def test_wrong_settings_are_told_without_secrets(serve, settings, more, message):
    with pytest.raises(ConfigError, match=message) as error:
        read_llm(settings(serve(), **more))
    assert SECRET not in str(error.value)


def test_a_missing_key_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("SOME_KEY", raising=False)
    config = read_llm({"backend": "openai", "model": "m", "api_key_env": "SOME_KEY"})
    with pytest.raises(ConfigError, match="environment variable SOME_KEY is not set"):
        build_client(config, tmp_path)


def test_replies_belong_to_a_server_by_any_spelling_of_its_address(settings, serve, tmp_path):
    one = serve(lambda body, n: "of one")
    other = serve(lambda body, n: "of the other")
    assert replies_by_key(settings(one), tmp_path, [ask("q")])["q"].text == "of one"
    assert replies_by_key(settings(other), tmp_path, [ask("q")])["q"].text == "of the other"
    spelled = settings(one, base_url=one.url.replace("http://", "HTTP://") + "//")
    assert replies_by_key(spelled, tmp_path, [ask("q")])["q"].text == "of one"
    assert (len(one.bodies), len(other.bodies)) == (1, 1)
    named = [settings(server, server="mine") for server in (one, other)]
    assert [replies_by_key(c, tmp_path, [ask("q")])["q"].text for c in named] == ["of one"] * 2


@pytest.mark.parametrize(
    "more",
    [
        {"model": "other"},
        {"send_seed": False},
        {"extra_body": {"reasoning_effort": "low"}},
        {"extra_query": {"api-version": "1"}},
        {"structured": "off"},
    ],
    ids=lambda more: next(iter(more)),
)
def test_what_goes_to_the_server_is_part_of_a_replys_identity(settings, serve, more):
    server = serve()
    plain, changed = read_llm(settings(server)), read_llm(settings(server, **more))
    assert plain.identity != changed.identity
    assert plain.endpoint_identity != changed.endpoint_identity


def test_a_limit_by_another_name_changes_what_a_server_rejects_and_no_reply(settings, serve):
    server = serve()
    plain = read_llm(settings(server))
    changed = read_llm(settings(server, token_field="max_completion_tokens"))
    assert plain.identity == changed.identity
    assert plain.endpoint_identity != changed.endpoint_identity


def test_replies_of_a_local_model_belong_to_its_weights(tmp_path):
    (tmp_path / "q4").mkdir()
    for name in ("config.json", "q4/a.gguf", "q4/b.gguf"):
        (tmp_path / name).write_text(name)
    node = {"backend": "transformers", "model": str(tmp_path)}
    one, other = (read_llm(node | {"gguf_file": f"q4/{name}.gguf"}).identity for name in "ab")
    assert [name for name, _ in one["files"]] == ["config.json", "q4/a.gguf"]
    assert "model" not in one and one["files"][1] != other["files"][1]
