"""Messages to the text of a prompt, by a processor's chat template or in a plain form."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lavis.common.errors import ConfigError
from lavis.common.multimodal.families import VlmFamily

# What opens and closes a model's reasoning.
THOUGHTS = (("<think>", "</think>"), ("◁think▷", "◁/think▷"), ("<seed:think>", "</seed:think>"))
_SWITCHES = ("enable_thinking", "thinking")  # variables of templates
_ANSWER = "this-is-an-answer"  # stands for one where a template is tried
_DATE = "01 Jan 2025"  # templates that write today's date would make another prompt every day


def write_chat(
    processor: Any,
    messages: Sequence[Mapping[str, Any]],
    thinking: bool = False,
    *,
    family: VlmFamily | None = None,
) -> str:
    """Return the text of a prompt, up to where the model's answer begins.

    Args:
        processor: of transformers; its own chat template is used, else its tokenizer's. Without
            either the texts of all messages are put into the family's plain form.
        messages: `role` and `content`, a text or a list of `{"type": "image"}` and
            `{"type": "text", "text": ...}`.
        thinking: let the model reason before its answer, where its template has a switch.
        family: of the model (None: the usual plain form).

    Raises:
        ConfigError: the template cannot write these messages.
    """
    template = template_of(processor)
    if template is None:
        return _plain(messages, family or VlmFamily())
    return _render(processor, template, messages, thinking=thinking, add_generation_prompt=True)


def answer_frame(processor: Any, *, family: VlmFamily | None = None) -> tuple[str, str]:
    """Return what stands between a prompt of `write_chat` and an answer, and what closes it.

    A blank or nothing, and the text up to the first special token behind an assistant's turn, which
    ends it; in a plain form, or of a template that writes none, the tokenizer's end token.

    Raises:
        ConfigError: the template writes no answers, or there is no end token.

    Example:
        >>> answer_frame(processor)
        ('', '<|im_end|>')
    """
    template, end = template_of(processor), processor.tokenizer.eos_token
    between, behind = "", ""
    if template is None:
        between = " " if (family or VlmFamily()).prompt.endswith(":") else ""
    else:
        content = [{"type": "image"}, {"type": "text", "text": "?"}]
        question = {"role": "user", "content": content}
        answer = {"role": "assistant", "content": [{"type": "text", "text": _ANSWER}]}
        prompt = _render(processor, template, [question], add_generation_prompt=True)
        whole = _render(processor, template, [question, answer], add_generation_prompt=False)
        before, _, behind = whole.rpartition(_ANSWER)
        lead = before.removeprefix(prompt) if before.startswith(prompt) else ""
        between = lead if lead.isspace() else ""
    special = processor.tokenizer.all_special_tokens
    special += [t.content for t in processor.tokenizer.added_tokens_decoder.values() if t.special]
    ends = [(behind.index(mark), len(mark)) for mark in special if mark in behind]
    if ends:
        place, length = min(ends, key=lambda one: (one[0], -one[1]))
        return between, behind[: place + length]
    if end is None:
        raise ConfigError("model.name: its tokenizer has no end token, so answers have no end")
    return between, str(end)


def _render(
    processor: Any,
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    thinking: bool = False,
    add_generation_prompt: bool,
) -> str:
    options: dict[str, Any] = {name: thinking for name in _SWITCHES if _uses(template, name)}
    if _uses(template, "date_string"):
        options["date_string"] = _DATE
    writer = processor if getattr(processor, "chat_template", None) else processor.tokenizer
    try:
        text: str = writer.apply_chat_template(
            list(messages),
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            **options,
        )
    except Exception as error:  # templates raise what they like
        raise ConfigError(f"model.name: its chat template refuses the prompt: {error}") from None
    return text


def template_of(processor: Any) -> str | None:
    """Return the chat template of a processor or its tokenizer; of several the default one."""
    for owner in (processor, getattr(processor, "tokenizer", None)):
        template = getattr(owner, "chat_template", None)
        if isinstance(template, Mapping):
            template = template.get("default")
        if template:
            return str(template)
    return None


def open_thought(prompt: str) -> str:
    """Return the mark that opens the model's reasoning if a prompt ends inside it, else ''."""
    for start, end in THOUGHTS:
        if prompt.rfind(start) > prompt.rfind(end):
            return start
    return ""


def _plain(messages: Sequence[Mapping[str, Any]], family: VlmFamily) -> str:
    texts, images = [], 0
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        images += sum(part["type"] == "image" for part in parts)
        texts += [part["text"] for part in parts if part["type"] == "text"]
    whole = "\n\n".join(texts)
    return family.prompt.replace("{images}", family.image * images).replace("{text}", whole)


def _uses(template: str, variable: str) -> bool:
    return re.search(rf"\b{variable}\b", template) is not None
