"""Prompts by a chat template or in plain form, and reasoning that is open at a prompt's end."""

import pytest

from lavis.common.errors import ConfigError
from lavis.common.multimodal import Family, write_chat
from lavis.common.multimodal.chat import open_thought, template_of
from projects.checks.tiny_vlm.parts import chat, make_tokenizer

MESSAGES = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "A cat?"}]}]


class Processor:
    """What `write_chat` needs of a processor that has only a tokenizer with a template."""

    chat_template = None

    def __init__(self, template):
        self.tokenizer = make_tokenizer()
        self.tokenizer.chat_template = template


def test_the_template_of_the_tokenizer_stands_in_for_the_processors():
    written = write_chat(Processor(chat("<image>")), MESSAGES)
    assert written == "<|im_start|>user\n<image>A cat?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("switch", ["enable_thinking", "thinking"])
def test_reasoning_is_switched_off_where_there_is_a_switch(switch):
    form = f"{{% if {switch} %}}<think>{{% else %}}<think></think>{{% endif %}}"
    processor = Processor(chat("<image>") + form)
    assert write_chat(processor, MESSAGES).endswith("<think></think>")
    assert open_thought(write_chat(processor, MESSAGES)) == ""
    assert open_thought(write_chat(processor, MESSAGES, thinking=True)) == "<think>"


def test_a_date_is_the_same_every_day():
    processor = Processor("{{ date_string }}" + chat("<image>"))
    assert write_chat(processor, MESSAGES).startswith("01 Jan 2025<|im_start|>")


def test_without_a_template_the_family_has_a_plain_form():
    assert write_chat(Processor(None), MESSAGES) == "USER: <image>\nA cat? ASSISTANT:"
    family = Family(prompt="Question: {text} Answer:", image="")
    assert write_chat(Processor(None), MESSAGES, family=family) == "Question: A cat? Answer:"
    chats = [{"role": "system", "content": "Look."}, *MESSAGES]
    form = Family(prompt="{images}{text}")
    assert write_chat(Processor(None), chats, family=form) == "<image>Look.\n\nA cat?"


def test_braces_of_a_text_are_its_own():
    texts = [{"role": "user", "content": "{images} {text}"}]
    assert write_chat(Processor(None), texts, family=Family(prompt="Q: {text}")) == (
        "Q: {images} {text}"
    )


def test_a_template_that_refuses_is_reported():
    processor = Processor("{{ raise_exception('no system role') }}")
    with pytest.raises(ConfigError, match="its chat template refuses the prompt: no system role"):
        write_chat(processor, MESSAGES)


def test_of_several_templates_the_default_one_counts():
    processor = Processor(None)
    processor.chat_template = {"tools": "x", "default": "y"}
    assert template_of(processor) == "y"


@pytest.mark.parametrize(
    ("prompt", "mark"),
    [
        ("assistant\n<think>\n", "<think>"),
        ("<think>\n\n</think>\n\n", ""),
        ("", ""),
        ("◁think▷", "◁think▷"),
    ],
)
def test_open_reasoning_is_seen(prompt, mark):
    assert open_thought(prompt) == mark
