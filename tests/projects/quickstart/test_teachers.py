"""The scripted teacher, under the path it has and under those of older run files."""

import json
import logging

import pytest

from lavis.llm.config import MOVED_SCRIPTS, ScriptedConfig
from lavis.llm.scripted import load_function
from projects.quickstart.teachers import describe_scene

NOTES = """NOTES ABOUT the picture
- [0]: "man", "a man in a coat", attributes "blue coat", "tall"
- [1]: "dog"
END OF NOTES
Write 3 different items.
"""
MESSAGES = [{"role": "user", "content": NOTES}]


def test_it_says_of_a_region_what_the_notes_say_of_it():
    items = json.loads(describe_scene(MESSAGES, None))["items"]
    assert len(items) == 3 and describe_scene(MESSAGES, None) != describe_scene(
        MESSAGES, None, seed=3
    )
    for item in items:
        about = item["question"].partition("[")[2][0]
        assert ("blue coat" if about == "0" else "dog") in item["answer"]


def test_all_wrong_says_of_a_region_what_is_noted_of_the_other():
    for item in json.loads(describe_scene(MESSAGES, None, mistakes=1.0))["items"]:
        about = item["question"].partition("[")[2][0]
        assert ("dog" if about == "0" else "blue coat") in item["answer"]


@pytest.mark.parametrize(("old", "new"), MOVED_SCRIPTS.items())
def test_a_path_of_an_older_run_file_works_and_the_new_one_is_named(old, new, caplog):
    with caplog.at_level(logging.WARNING):
        assert load_function(old) is load_function(new)
    assert [record.message for record in caplog.records] == [
        f"llm.script: {old} is now {new}; write that"
    ]
    journaled = {"backend": "scripted", "script": old, "options": {"seed": 1}}
    assert ScriptedConfig(script=old, options={"seed": 1}).identity == journaled
    assert ScriptedConfig(script=new, options={"seed": 1}).identity == journaled
