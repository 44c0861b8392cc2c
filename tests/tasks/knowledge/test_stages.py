"""What a chunk of a verbalization depends on, and what its stages are named by."""

from __future__ import annotations

import json

from lavis.tasks.knowledge.stages import (
    Stage,
    UnitNote,
    endpoint_digest,
    hash_descriptors,
    stage_identity,
)
from lavis.verbalizers.config import CaptionsConfig, WriterConfig


def hashed(*lines):
    return hash_descriptors(json.dumps(line).encode() for line in lines)


def test_failures_change_what_is_read_only_where_something_is_left():
    said = {"image": "a", "captions": ["x"]}
    whole = hashed(said)
    failed = hashed({**said, "failed": ["refusal: no"]})
    assert hashed({**said, "failed": ["refusal: other words"]}) == failed
    assert hashed({**said, "refused": ["HTTP 413: too large"]}) == failed
    left = hashed({**said, "left": ["HTTP 500: down"]})
    assert hashed({**said, "left": ["HTTP 502: down"]}) == left
    assert len({whole, failed, left, hashed({**said, "captions": ["y"]})}) == 4


def client(**more):
    return {"backend": "openai", "model": "m", "base_url": "http://127.0.0.1:1/v1", **more}


def stage(**more):
    return {"writer": {"type": "client", "client": client(**more), "batch_size": 4}, "chunk": 2}


def digest(node):
    """Return the digest of a stage whose writer has these settings."""
    writer = WriterConfig(**node["writer"])
    config = CaptionsConfig(type="captions", writer=writer)
    return endpoint_digest(config)


def test_a_stage_is_named_by_what_its_replies_depend_on_and_rejects_by_more():
    one, faster = stage(), stage(concurrency=3, timeout=9.0)
    assert stage_identity(one) == stage_identity(faster)
    assert digest(one) == digest(faster)
    other = stage(extra_body={"chat_template_kwargs": {"enable_thinking": False}})
    assert stage_identity(one) != stage_identity(other)
    asked_otherwise = stage(token_field="max_completion_tokens")
    assert stage_identity(one) == stage_identity(asked_otherwise)
    assert digest(one) != digest(asked_otherwise)
    assert digest({"writer": {"type": "local", "model": "x", "client": {}}}) == ""


def test_rejects_are_asked_anew_after_a_change_or_where_that_is_wanted(tmp_path):
    here = Stage("s", (), {}, tmp_path, 2, endpoint="now")
    fine, refused = UnitNote("r"), UnitNote("r", has_rejects=True, endpoint="before")
    same, useless = UnitNote("r", has_rejects=True, endpoint="now"), UnitNote("r", has_rejects=True)
    assert [n.is_done_again(here, False) for n in (fine, refused, same, useless)] == [
        False, True, False, False,
    ]  # fmt: skip
    assert [n.is_done_again(here, True) for n in (fine, refused, same, useless)] == [
        False, True, True, True,
    ]  # fmt: skip
