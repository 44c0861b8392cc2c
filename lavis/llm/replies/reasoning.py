"""What a model thinks before it answers, told from its answer by the marks that models put around.

Servers with the right parser take the marks away themselves; others hand over the raw text.
"""

from __future__ import annotations

import json
import re

from lavis.common.errors import REFUSALS

_WORDS = (
    r"(?:think|thinking|thoughts?|thought_process|reasoning|reflection|analysis|scratchpad|"
    r"chain_of_thought|inner_monologue)"
)
_OPEN, _SHUT = r"(?:<|&lt;|◁)\|?\s*", r"\s*\|?(?:>|&gt;|▷)"
_CHANNEL = r"(?:<\|start\|>\s*assistant\s*)?<\|channel\|>\s*"
_HEADER = r"\b[^<]{0,100}(?:<\|constrain\|>[^<]{0,40})?<\|message\|>"

# name -> (what opens a thought, what closes it); case does not matter. Where an end stands alone,
# its start was in the prompt, as chat templates of DeepSeek-R1 and Qwen3 write it.
MARKS: dict[str, tuple[str, str]] = {
    # <think> of DeepSeek, Qwen, GLM; <thought> of EXAONE; <seed:think>; ◁think▷ of Kimi
    "tag": (
        rf"{_OPEN}(?:[a-z]\w{{0,20}}:)?{_WORDS}(?:\s[^<>]{{0,100}}?)?(?<!/){_SHUT}",
        rf"{_OPEN}/\s*\|?\s*(?:[a-z]\w{{0,20}}:)?{_WORDS}{_SHUT}",
    ),
    # Magistral
    "bracket": (r"\[\s*think(?:ing)?\s*\]", r"\[\s*/\s*think(?:ing)?\s*\]"),
    # OpenThinker's <|begin_of_thought|>, Command A's <|START_THINKING|>
    "named ends": (
        rf"<\|\s*(?:begin|start)_(?:of_)?{_WORDS}\s*\|>",
        rf"<\|\s*end_(?:of_)?{_WORDS}\s*\|>",
    ),
    # gpt-oss (harmony): channels; all that comes before the final one is no answer
    "channel": (
        rf"{_CHANNEL}(?:analysis|commentary){_HEADER}",
        rf"{_CHANNEL}final{_HEADER}",
    ),
    # gpt-oss where the special tokens were dropped from the text
    "bare channel": (r"\A\s*(?-i:analysis(?=[A-Z]))", r"(?-i:assistantfinal)"),
    "gemma": (r"<\|channel>\s*thought\b|<unused94>\s*thought\b", r"<channel\|>|<unused95>"),
    # Granite 3.2, Apriel
    "words": (
        r"\A\s*here (?:is my thought process|are my reasoning steps):",
        r"^[ \t]*here is my response:|\[begin final response\]",
    ),
    # what opens the answer itself closes the thought before it
    "answer": (
        r"(?!)",
        r"<\|(?:begin_of_solution|begin_of_box|start_response)\|>|"
        r"<(?:final[_ ])?(?:answer|response)>",
    ),
}
_MARK = re.compile(
    "|".join(
        f"(?P<start{place}>{start})|(?P<end{place}>{end})"
        for place, (start, end) in enumerate(MARKS.values())
    )
    # <|end|> is the end of a channel, of anything else it is a left-over; <think/> says nothing
    + rf"|(?P<over><\|(?:end|return|call)\|>|<{_WORDS}\s*/>)",
    re.IGNORECASE | re.MULTILINE,
)
_CHANNEL_PLACE = list(MARKS).index("channel")
# Marks that servers leave behind an answer.
_LEFT_OVER = re.compile(
    r"(?:\s*(?:<\|(?:end_of_solution|end_of_box|end_response|im_end|endoftext|eot_id|end|return|"
    r"end_of_text|eom_id)\|>|</(?:final[_ ])?(?:answer|response)>|</s>|<eos>|<end_of_turn>|"
    r"\[end final response\]))+\s*\Z",
    re.IGNORECASE,
)
_TAIL = 400  # characters at the end of a text where such marks are looked for
_QUOTES = frozenset("\"'`“”„‘’‚«»‹›「」『』")


def answer_text(text: str) -> tuple[str, str]:
    """Return what a text says as its answer, and what it says in thought.

    A thought that is not closed goes to the end: its text is never the answer. A mark between
    quotation marks is only mentioned, and so are marks inside the strings of a text that is JSON.
    """
    if is_json(text):
        return text, ""
    text = text.removeprefix("\ufeff")
    answer: list[str] = []
    thought: list[str] = []
    inside: int | None = None  # place of the mark that opened the thought
    depth = here = fresh = 0
    for match in _MARK.finditer(text):
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
            if place == inside != _CHANNEL_PLACE and text[fresh : match.start()].strip():
                depth += 1  # a start right after a start is the template's, written twice
            fresh = match.end()
        else:
            thought.append(piece)
            if kind == "over":
                depth = 0 if inside == _CHANNEL_PLACE else depth
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
    """Return the mark that a prompt ends with, where it opens the thought for the model."""
    end = prompt[-_TAIL:].rstrip()
    marks = [match for match in _MARK.finditer(end) if match.end() == len(end)]
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
