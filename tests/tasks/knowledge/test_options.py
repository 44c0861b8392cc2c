"""Options of `generate` that say how much of a record a prompt shows, and which templates."""

import json

import pytest
from generation_run import image

from lavis.datasets.files.formats import open_records
from lavis.tasks.knowledge.config import GenerateConfig
from lavis.tasks.knowledge.generation import KnowledgeGeneration


def generation(tmp_path, **options):
    record = image(0) | {
        "captions": ["first caption", "second caption"],
        "narratives": ["first narrative", "second narrative"],
        "concepts": {"places": ["park", "street"]},
        "dynamic": [
            {"question": "Who walks?", "answer": "a man"},
            {"question": "Who runs?", "answer": "a dog"},
        ],
    }
    path = tmp_path / "words.jsonl"
    path.write_text(json.dumps(record) + "\n")
    config = GenerateConfig(records=[str(path)], prompts=[{"source": "s"}], **options)
    return KnowledgeGeneration(config, open_records(config.records))


def prompt(generation):
    return generation.request(0, generation.scene(0)).messages[-1]["content"]


@pytest.mark.parametrize(
    ("option", "gone"),
    [
        ("max_captions", "second caption"),
        ("max_narratives", "second narrative"),
        ("max_concepts", "street"),
        ("max_dialogue", "Who runs?"),
        ("max_regions", "a man in a blue coat"),
    ],
)
def test_a_prompt_shows_at_most_so_many_notes(tmp_path, option, gone):
    assert gone in prompt(generation(tmp_path))
    assert gone not in prompt(generation(tmp_path, **{option: 1}))


def test_templates_of_a_folder_win_over_the_shipped_ones(tmp_path):
    shipped = generation(tmp_path)
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "system.jinja").write_text("Answer as a pirate.")
    ours = generation(tmp_path, prompt_dir=str(folder))
    assert ours.request(0, ours.scene(0)).messages[0]["content"] == "Answer as a pirate."
    assert prompt(ours) == prompt(shipped)
    assert ours.identity()["templates"] != shipped.identity()["templates"]
