"""Prompt files: what presets write, and what is refused of a user's own."""

import pytest

from lavis.common.errors import ConfigError
from lavis.models.vlm.config import VlmCriticConfig
from lavis.models.vlm.prompts import Prompt, check_prompt, presets

VALUES = {
    "question": "what is [0]?", "answer": "a cup", "rationale": "it is round", "text": "a cup",
    "regions": [{"number": 0, "words": "[1, 2, 3, 4]"}], "options": [],
}  # fmt: skip


def test_vqascore_is_word_for_word_that_of_its_source():
    written = Prompt("vqascore").render(VALUES)
    assert written == 'Does this figure show "a cup"? Please answer Yes or No.'
    verdict = presets()["vqascore"]
    assert (verdict.yes_words, verdict.spellings, verdict.over) == (("Yes",), "exact", "vocabulary")


@pytest.mark.parametrize("name", ["lskd_accept", "rationale_supports_answer"])
def test_what_differs_between_texts_stands_behind_what_they_share(name):
    prompt = Prompt(name)
    one = prompt.render(VALUES)
    other = prompt.render({**VALUES, "question": "who?", "answer": "she", "rationale": "so"})
    assert one[: one.index("Question:")] == other[: other.index("Question:")]
    assert "[0]: [1, 2, 3, 4]\n\nQuestion: what is [0]?\nAnswer: a cup\n" in one
    assert one.endswith("Answer with Yes or No.")


def test_a_text_without_parts_is_judged_as_it_is():
    written = Prompt("lskd_accept").render({**VALUES, "question": "", "regions": []})
    assert "\nText: a cup\n" in written and "Question" not in written and "Regions" not in written


def test_values_are_not_read_as_templates():
    assert "{{ answer }}" in Prompt("vqascore").render({**VALUES, "text": "{{ answer }}"})


def test_a_file_may_stand_for_a_preset(tmp_path):
    path = tmp_path / "own.jinja"
    path.write_text("{{ question }} {{ answer }}?\n", encoding="utf-8")
    assert Prompt(str(path)).render(VALUES) == "what is [0]? a cup?"
    assert Prompt(str(path)).verdict.spellings == "all"
    check_prompt(str(path), "model.prompt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ qestion }}", "'qestion' is undefined; a template may use question, answer"),
        ("{% if %}", "Expected an expression"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
    ],
)
def test_a_file_that_cannot_be_rendered_is_refused(tmp_path, text, message):
    path = tmp_path / "own.jinja"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as error:
        check_prompt(str(path), "model.prompt")
    assert str(error.value).startswith(f"model.prompt: {path}: ")


def test_an_unknown_preset_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"model.prompt: 'vqascor' .*did you mean 'vqascore'"):
        check_prompt("vqascor", "model.prompt")


def test_words_that_yaml_reads_as_truth_are_words_again():
    config = VlmCriticConfig(name="x", yes_words=(True, "Right"), no_words=(False,))
    assert (config.yes_words, config.no_words) == (("Yes", "Right"), ("No",))
