"""The quickstart's teacher: reads the notes on a scene in the prompt, never the image, and errs.

`scripts/generate_qar.py` calls `write_items` in place of a language model (`llm.script`). Its
mistakes are those of teachers that cannot see, and they are systematic: nobody learns better by
hearing more of them.

- it counts regions from one: in some images it says of every region what the notes say of the one
  before;
- it says what is usual: a banana is yellow, whatever colour the notes give;
- it takes a thing for its look-alike, always the same one: a banana for a lemon.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from projects.quickstart import openmoji
from projects.quickstart.worlds.claims import with_article
from projects.quickstart.worlds.scenes import COLOURS

_NOTE = re.compile(r'^- \[(\d+)\]: "(\w+)", attributes (.*?)(?:, at the .*)?$', re.MULTILINE)
_COUNT = re.compile(r"^Write (\d+) different items", re.MULTILINE)


@dataclass(frozen=True)
class Noted:
    """What the notes say of a region; a fact is found by its name in `facts`."""

    number: int
    facts: dict[str, str]  # object, kind, and colour where one is noted


def write_items(
    messages: Sequence[Mapping[str, Any]],
    request: Any,
    *,
    miscounted: float = 0.0,
    habits: float = 0.0,
    seed: int = 0,
) -> str:
    """Return a reply of the asked form: different items on objects, kinds and colours.

    Args:
        messages: the prompt; its last message holds the notes.
        request: not read.
        miscounted: share of images whose regions are counted from one.
        habits: share of items that say what is usual, or name the look-alike.
        seed: with the prompt's text it settles every choice.
    """
    prompt = str(messages[-1]["content"])
    regions = read_notes(prompt)
    found = _COUNT.search(prompt)
    count = int(found[1]) if found else 1
    digest = hashlib.blake2b(f"{seed} {prompt}".encode(), digest_size=8).digest()
    rng = random.Random(int.from_bytes(digest, "big"))
    off = int(rng.random() < miscounted)
    topics = [(place, kind) for place, region in enumerate(regions) for kind in region.facts]
    items = []
    for place, kind in rng.sample(topics, min(count, len(topics))):
        facts = regions[place].facts
        said = usual(facts, kind) if rng.random() < habits else facts[kind]
        number = regions[(place + off) % len(regions)].number
        items.append(write_item(number, kind, said))
    return json.dumps({"items": items})


def read_notes(prompt: str) -> list[Noted]:
    """Return the regions of the notes, in order."""
    regions = []
    for number, word, attributes in _NOTE.findall(prompt.split("END OF NOTES")[0]):
        facts = {"object": word}
        for attribute in re.findall(r'"(\w+)"', attributes):
            facts["colour" if attribute in COLOURS else "kind"] = attribute
        regions.append(Noted(int(number), facts))
    return regions


def usual(facts: Mapping[str, str], kind: str) -> str:
    """Return what the teacher takes for granted in place of a fact, always the same, never true."""
    true = facts[kind]
    if kind == "object":
        return look_alike(true)
    if kind == "kind":
        kinds = list(openmoji.KINDS)
        return kinds[(kinds.index(true) + 1) % len(kinds)]
    colour = usual_colour(facts["object"])
    return colour if colour not in (None, true) else COLOURS[COLOURS.index(true) - 1]


def look_alike(word: str) -> str:
    """Return the next object of the same kind."""
    kind = openmoji.catalogue()[word].kind
    words = [entry for entry, thing in openmoji.catalogue().items() if thing.kind == kind]
    return words[(words.index(word) + 1) % len(words)]


@cache
def usual_colour(word: str) -> str | None:
    """Return the colour in which the pictogram comes, if it is one that is asked for."""
    colour, _ = openmoji.dominant_colour(openmoji.render(word, 46))
    return colour if colour in COLOURS else None


def write_item(number: int, kind: str, said: str) -> dict[str, str]:
    """Return one item that says a fact of a region."""
    tag = f"[{number}]"
    if kind == "object":
        name = " ".join(with_article(said))
        question, answer, rationale = f"What is {tag}?", name, f"{tag} has the shape of {name}."
    elif kind == "kind":
        question = f"What kind of thing is {tag}?"
        answer = said if said == "clothing" else " ".join(with_article(said))
        rationale = f"{tag} belongs to the {said} kind."
    else:
        question, answer = f"What colour is {tag}?", said
        rationale = f"most of {tag} is painted {said}."
    return {"question": question, "answer": f"{answer}.", "rationale": rationale}
