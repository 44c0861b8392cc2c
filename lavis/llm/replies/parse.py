"""An item of a model's reply to a question / answer / rationale record, or the reason why not.

Every reason starts with a fixed phrase, by which they are counted.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any, Literal

from lavis.common.text import fold, units
from lavis.llm.replies.items import FIELDS, QarItem
from lavis.llm.replies.refusal import is_refusal
from lavis.llm.replies.region_text import (
    Tokens,
    count_words,
    no_region,
    region_ids,
    same,
    tokenize,
    tokenize_handles,
)
from lavis.llm.replies.scene import SceneNotes

MIN_WORDS = {"question": 2, "answer": 1, "rationale": 3}  # ids count as words here
# Critic and student read 70 words of question, answer and rationale together. A part that is
# longer alone, or a rationale of twice as many, is an essay or a loop; so is what has more
# characters than as many long words.
MAX_WORDS = {"question": 70, "answer": 70, "rationale": 140}
MAX_CHARACTERS_PER_WORD = 12
ECHO_WORDS = 8  # as many words in a row as the instructions have are an echo


@dataclass(frozen=True)
class Requirements:
    """What the prompt requested.

    Attributes:
        style: how regions are named.
        regions: `any`: each item names one region or more; `none`: none does.
        people: an item names a person's region, if regions are named.
        num_items: more than these are dropped.
    """

    style: Literal["ids", "descriptions"]
    regions: Literal["any", "none"]
    people: bool
    num_items: int


def make_record(
    item: QarItem, scene: SceneNotes, required: Requirements, instructions: str
) -> dict[str, Any] | str:
    """Return the LCK record of an item (without source, split and index), or why it is dropped.

    Ids are checked against the scene's regions, texts against the prompt's instructions.
    """
    texts = {part: _clean(getattr(item, part)) for part in FIELDS}
    reason = _text_problem(texts, instructions)
    if reason:
        return reason
    if required.style == "descriptions":
        if any(isinstance(t, list) for text in texts.values() for t in tokenize(text)):
            return "region id: numbers in brackets where descriptions were asked for"
        named = required.regions == "any"
        handles = {region.handle: region.id for region in scene.regions} if named else {}
        tokens = {part: tokenize_handles(text, handles) for part, text in texts.items()}
    else:
        tokens = {part: tokenize(text) for part, text in texts.items()}
    ids = region_ids(*tokens.values())
    reason = _token_problem(tokens, ids, scene, required)
    if reason:
        return reason
    shown = [region.id for region in scene.regions]
    return {
        "image": scene.image,
        "region": ids,
        "region_all": shown,
        "references": [
            {
                "name": str(region.id),
                "boxes": region.boxes,
                "segms": region.segms,
                "obj_guess": region.name,
                "tag": "region",
            }
            for region in scene.regions
        ],
        **tokens,
    }


def _clean(text: str) -> str:
    """Return a text with single blanks, which any file can hold.

    Halves of surrogate pairs are joined, or become U+FFFD; control characters (C0, C1) are blanks.
    Invisible marks stay: Persian and emoji need joiners, right-to-left texts directions.
    """
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text).split())


def _text_problem(texts: dict[str, str], instructions: str) -> str:
    for part, text in texts.items():
        if not text:
            return f"empty: {part}"
        if len(text) > MAX_WORDS[part] * MAX_CHARACTERS_PER_WORD:
            return f"too long: {part} has {len(text)} characters"
        if is_refusal(text):
            return f"refusal: {part}"
        if echoes(text, instructions):
            return f"prompt echo: {part} repeats the instructions"
        if other := no_region(text):
            return f"not a region: {other[:40]} in the {part}"
    return ""


def _token_problem(
    tokens: dict[str, Tokens], ids: list[int], scene: SceneNotes, required: Requirements
) -> str:
    for part, content in tokens.items():
        count = count_words(content)
        if not count and part != "answer":
            return f"ids only: {part}"
        if not count and not region_ids(content):
            return f"empty: {part}"
        count += sum(isinstance(token, list) for token in content)
        if count < MIN_WORDS[part]:
            return f"too short: {part}"
        if count > MAX_WORDS[part]:
            return f"too long: {part} has {count:.0f} words"
    if same(tokens["question"], tokens["answer"]):
        return "answer repeats the question"
    if same(tokens["answer"], tokens["rationale"]):
        return "rationale repeats the answer"
    unknown = [number for number in ids if scene.find(number) is None]
    if unknown:
        return f"unknown region id: {unknown[0]}"
    if required.regions == "none":
        return "region id: named where none was asked for" if ids else ""
    if not ids:
        return "no region: none is named"
    people = [region for number in ids if (region := scene.find(number)) and region.is_person]
    if required.people and not people:
        return "no person: no person's region is named"
    return ""


def echoes(text: str, instructions: str) -> bool:
    """Return whether a text holds the form's dots or a run of words of the instructions."""
    if text.strip(" .…") == "":
        return True
    mine, theirs = units(fold(text)), _plain(instructions)
    size, start, end = 0.0, 0, 0
    for _, weight in mine:
        size, end = size + weight, end + 1
        while size - mine[start][1] >= ECHO_WORDS:
            size, start = size - mine[start][1], start + 1
        run = " ".join(w for w, _ in mine[start:end])
        if size >= ECHO_WORDS and f" {run} " in theirs:
            return True
    return False


@functools.lru_cache(maxsize=8)
def _plain(instructions: str) -> str:
    """Return the words of the instructions between single spaces; `|` separates unrelated parts."""
    parts = (" ".join(w for w, _ in units(fold(part))) for part in instructions.split("|"))
    return f" {' | '.join(parts)} "
