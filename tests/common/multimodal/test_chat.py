"""Prompts by a chat template or in plain form, and reasoning that is open at a prompt's end."""

import pytest

from lavis.common.errors import ConfigError
from lavis.common.multimodal import VlmFamily, answer_frame, write_chat
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
    family = VlmFamily(prompt="Question: {text} Answer:", image="")
    assert write_chat(Processor(None), MESSAGES, family=family) == "Question: A cat? Answer:"
    chats = [{"role": "system", "content": "Look."}, *MESSAGES]
    form = VlmFamily(prompt="{images}{text}")
    assert write_chat(Processor(None), chats, family=form) == "<image>Look.\n\nA cat?"


def test_braces_of_a_text_are_its_own():
    texts = [{"role": "user", "content": "{images} {text}"}]
    assert write_chat(Processor(None), texts, family=VlmFamily(prompt="Q: {text}")) == (
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


class Marked(Processor):
    """One whose turns begin and end with marks."""

    def __init__(self, template):
        self.tokenizer = make_tokenizer(("<|im_start|>", "<|im_end|>", "<|user|>"))
        self.tokenizer.chat_template = template


TURN = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content[-1].text }}"
TURN += "<|im_end|>\n{% endfor %}"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n"
CASES = {
    "chat form": (TURN + PROMPT + "{% endif %}", ("", "<|im_end|>")),
    "a blank on both sides": (
        "{% for m in messages %}{{ m.role.upper() }}: {{ m.content[-1].text }}"
        "{{ ' </s>' if m.role == 'assistant' else ' ' }}{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}",
        (" ", " </s>"),
    ),
    "reasoning that is closed in the prompt only": (
        TURN
        + PROMPT
        + "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
        ("", "<|im_end|>"),
    ),
    "no end": (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content[-1].text }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}",
        ("", "</s>"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_frames(case):
    template, frame = CASES[case]
    assert answer_frame(Marked(template)) == frame


def test_plain_forms_end_with_the_tokenizers_own_token():
    processor = Marked(None)
    assert answer_frame(processor) == (" ", "</s>")
    assert answer_frame(processor, family=VlmFamily(prompt="{images}{text}")) == ("", "</s>")
    processor.tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="its tokenizer has no end token"):
        answer_frame(processor)
