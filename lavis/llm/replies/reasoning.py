"""A model's reasoning and its answer, separated by the marks that models put around reasoning.

Servers with the right parser remove the marks themselves; others return the raw text. The marks are
listed in `lavis/configs/llm/reasoning_marks.yaml`.
"""

from __future__ import annotations

import functools
import json
import re

from pydantic.dataclasses import dataclass

from lavis.common.config.fields import STRICT
from lavis.common.errors import REFUSALS
from lavis.llm.tables import Alternatives, expand, load_table

# Marks that servers leave behind an answer.
_LEFT_OVER = re.compile(
    r"(?:\s*(?:<\|(?:end_of_solution|end_of_box|end_response|im_end|endoftext|eot_id|end|return|"
    r"end_of_text|eom_id)\|>|</(?:final[_ ])?(?:answer|response)>|</s>|<eos>|<end_of_turn>|"
    r"\[end final response\]))+\s*\Z",
    re.IGNORECASE,
)
_TAIL = 400  # characters at the end of a text where such marks are looked for
_QUOTES = frozenset("\"'`“”„‘’‚«»‹›「」『』")


@dataclass(frozen=True, config=STRICT)
class _Mark:
    name: str
    models: str
    opens: Alternatives
    closes: Alternatives


@dataclass(frozen=True, config=STRICT)
class _Marks:
    fragments: dict[str, Alternatives]
    marks: list[_Mark]


@functools.cache
def _marks() -> tuple[re.Pattern[str], int]:
    """Return the pattern of all marks, a group for each, and the index of the channel's."""
    table = load_table("reasoning_marks", _Marks)
    marks = "|".join(
        f"(?P<start{place}>{mark.opens})|(?P<end{place}>{mark.closes})"
        for place, mark in enumerate(table.marks)
    )
    # <|end|> is the end of a channel, of anything else it is a left-over; <think/> says nothing
    marks += r"|(?P<over><\|(?:end|return|call)\|>|<%(words)s\s*/>)"
    pattern = re.compile(expand(marks, table.fragments), re.IGNORECASE | re.MULTILINE)
    return pattern, [mark.name for mark in table.marks].index("channel")


def answer_text(text: str) -> tuple[str, str]:
    """Return the answer and the reasoning of a text.

    Reasoning that is not closed goes to the end: its text is never the answer. A mark between
    quotation marks is only mentioned, and so are marks inside the strings of a text that is JSON.
    """
    if is_json(text):
        return text, ""
    text = text.removeprefix("\ufeff")
    pattern, channel = _marks()
    answer: list[str] = []
    thought: list[str] = []
    inside: int | None = None  # place of the mark that opened the thought
    depth = here = fresh = 0
    for match in pattern.finditer(text):
        if _is_mentioned(text, *match.span()):
            continue
        kind, place = _kind(match)
        piece = text[here : match.start()]
        if inside is None:
            (answer if kind == "start" or kind == "over" else thought).append(piece)
            if kind == "start":
                inside, depth, fresh = place, 1, match.end()
            elif kind == "end":
                thought[:0], answer = answer, []
        elif kind == "start":
            thought.append(piece)
            if place == inside != channel and text[fresh : match.start()].strip():
                depth += 1  # a start right after a start is the template's, written twice
            fresh = match.end()
        else:
            thought.append(piece)
            if kind == "over":
                depth = 0 if inside == channel else depth
            elif place == inside:
                depth -= 1
            inside = inside if depth else None
        here = match.end()
    (answer if inside is None else thought).append(text[here:])
    if not thought and here == 0:
        return _trimmed(text), ""
    parts = [piece.strip() for piece in thought]
    return _trimmed("".join(answer)).strip(), "\n\n".join(part for part in parts if part)


def open_mark(prompt: str) -> str:
    """Return the mark that a prompt ends with, if it opens the reasoning for the model."""
    end = prompt[-_TAIL:].rstrip()
    marks = [match for match in _marks()[0].finditer(end) if match.end() == len(end)]
    return marks[-1].group() if marks and _kind(marks[-1])[0] == "start" else ""


def is_json(text: str) -> bool:
    """Return whether a whole text is one JSON object or list."""
    if text[:400].lstrip("\ufeff \t\r\n")[:1] not in ("{", "["):
        return False
    try:
        json.loads(text.lstrip("\ufeff \t\r\n"))
    except REFUSALS:
        return False
    return True


def _kind(match: re.Match[str]) -> tuple[str, int]:
    name = match.lastgroup or "over"
    if name == "over":
        return name, -1
    kind = name.rstrip("0123456789")
    return kind, int(name[len(kind) :])


def _is_mentioned(text: str, start: int, end: int) -> bool:
    """Return whether a mark stands in quotation marks by itself."""
    after = text[end : end + 2].lstrip("\\")[:1]
    return start > 0 and text[start - 1] in _QUOTES and after in _QUOTES and after != ""


def _trimmed(text: str) -> str:
    tail = _LEFT_OVER.sub("", text[-_TAIL:])
    return text[:-_TAIL] + tail
