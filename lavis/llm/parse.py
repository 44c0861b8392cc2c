"""An item of a model's reply to a question / answer / rationale record, or the reason why not.

Every reason starts with a fixed phrase, by which they are counted.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any, Literal

from lavis.llm.refusal import is_refusal
from lavis.llm.region_text import Tokens, region_ids, render, tokenize, tokenize_handles, words
from lavis.llm.reply_items import QarItem
from lavis.llm.scene import Scene

PARTS = ("question", "answer", "rationale")
MIN_WORDS = {"question": 2, "answer": 1, "rationale": 3}  # ids count as words here
ECHO_WORDS = 8  # as many words in a row as the instructions have are an echo


@dataclass(frozen=True)
class Wanted:
    """What the prompt asked for.

    Attributes:
        style: how regions are named.
        regions: `any`: each item names one region or more; `none`: none does.
        people: an item names a person's region, where regions are named.
        num_items: more than these are dropped.
    """

    style: Literal["ids", "descriptions"]
    regions: Literal["any", "none"]
    people: bool
    num_items: int


def make_record(
    item: QarItem, scene: Scene, wanted: Wanted, instructions: str
) -> dict[str, Any] | str:
    """Return the LCK record of an item (without source, split and index), or why it is dropped.

    Args:
        item: what the model wrote.
        scene: what it was asked about; ids are checked against its regions.
        wanted: what it was asked for.
        instructions: of the prompt; see `echoes`.
    """
    texts = {part: _clean(getattr(item, part)) for part in PARTS}
    reason = _text_problem(texts, instructions)
    if reason:
        return reason
    if wanted.style == "descriptions":
        if any(isinstance(t, list) for text in texts.values() for t in tokenize(text)):
            return "region id: numbers in brackets where descriptions were asked for"
        named = wanted.regions == "any"
        handles = {region.handle: region.id for region in scene.regions} if named else {}
        tokens = {part: tokenize_handles(text, handles) for part, text in texts.items()}
    else:
        tokens = {part: tokenize(text) for part, text in texts.items()}
    ids = region_ids(*tokens.values())
    reason = _token_problem(tokens, ids, scene, wanted)
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
    text = text.encode("utf-8", "replace").decode()  # halves of surrogate pairs
    return " ".join(re.sub(r"[\x00-\x1f\x7f]", " ", text).split())


def _text_problem(texts: dict[str, str], instructions: str) -> str:
    for part, text in texts.items():
        if not text:
            return f"empty: {part}"
        if is_refusal(text):
            return f"refusal: {part}"
        if echoes(text, instructions):
            return f"prompt echo: {part} repeats the instructions"
    return ""


def _token_problem(tokens: dict[str, Tokens], ids: list[int], scene: Scene, wanted: Wanted) -> str:
    for part, found in tokens.items():
        said = words(found)
        if not said and part != "answer":
            return f"ids only: {part}"
        if not said and not region_ids(found):
            return f"empty: {part}"
        mentions = sum(isinstance(token, list) for token in found)
        if len(said) + mentions < MIN_WORDS[part]:
            return f"too short: {part}"
    if same(tokens["question"], tokens["answer"]):
        return "answer repeats the question"
    if same(tokens["answer"], tokens["rationale"]):
        return "rationale repeats the answer"
    unknown = [number for number in ids if scene.find(number) is None]
    if unknown:
        return f"unknown region id: {unknown[0]}"
    if wanted.regions == "none":
        return "region id: named where none was asked for" if ids else ""
    if not ids:
        return "no region: none is named"
    people = [region for number in ids if (region := scene.find(number)) and region.is_person]
    if wanted.people and not people:
        return "no person: no person's region is named"
    return ""


def echoes(text: str, instructions: str) -> bool:
    """Return whether a text holds the form's dots or a run of words of the instructions."""
    if text.strip(" .…") == "":
        return True
    mine = re.findall(r"\w+", text.lower())
    theirs = _plain(instructions)
    runs = (mine[i : i + ECHO_WORDS] for i in range(len(mine) - ECHO_WORDS + 1))
    return any(f" {' '.join(run)} " in theirs for run in runs)


@functools.lru_cache(maxsize=8)
def _plain(instructions: str) -> str:
    """Return the words of the instructions between single spaces; `|` parts what is not joined."""
    found = re.findall(r"\w+|\|", instructions.lower())
    return f" {' '.join(found)} "


def same(one: Tokens, other: Tokens) -> bool:
    """Return whether two token lists say the same but for case and punctuation."""
    return normalized(one) == normalized(other)


def normalized(tokens: Tokens) -> str:
    """Return tokens as text without case and punctuation, by which duplicates are found."""
    kept = [t for t in tokens if isinstance(t, list) or any(c.isalnum() for c in str(t))]
    return render(kept).lower()
