"""Rules in place of a language model. They know what the prompt says, and nothing else.

`describe_scene` reads the notes in the prompt as a model would, and writes about regions what the
notes say of them. Like a model it errs: a share of its items says of one region what the notes say
of another, or what no note says.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from dataclasses import dataclass
from typing import Any

from lavis.llm.base import ChatRequest, Message, message_texts

_STRING = r'"(?:[^"\\]|\\.)*"'
_REGION = re.compile(
    rf"^- (?:\[(?P<id>\d+)\]|(?P<handle>{_STRING})): (?P<name>{_STRING})"
    rf"(?:, (?P<caption>{_STRING}))?(?:, attributes (?P<attributes>{_STRING}(?:, {_STRING})*))?",
    re.MULTILINE,
)
_COUNT = re.compile(r"^Write (\d+) different items", re.MULTILINE)
_OTHERS = ("broken", "brand new", "about to fall", "made of glass")  # what no note says


@dataclass(frozen=True)
class _Noted:
    tag: str
    name: str
    caption: str
    attributes: tuple[str, ...]

    @property
    def look(self) -> str:
        return self.attributes[0] if self.attributes else self.caption or self.name


def describe_scene(
    messages: list[Message], request: ChatRequest, *, mistakes: float = 0.0, seed: int = 0
) -> str:
    """Return a reply of the asked form, made of the notes in the last user's message.

    Args:
        messages: the prompt.
        request: not read.
        mistakes: share of items that are wrong on purpose.
        seed: with the prompt's text it settles every choice.
    """
    prompt = next(t for t in reversed(message_texts(messages)) if "NOTES ABOUT" in t)
    notes = prompt.split("END OF NOTES")[0]
    digest = hashlib.blake2b(f"{seed} {prompt}".encode(), digest_size=8).digest()
    rng = random.Random(int.from_bytes(digest, "big"))
    found = _COUNT.search(prompt.split("END OF NOTES")[-1])
    count = int(found[1]) if found else 1
    regions = [_noted(match) for match in _REGION.finditer(notes)]
    named = "Do not name regions" not in prompt and "picture as a whole" not in prompt
    if not regions or not named:
        return json.dumps({"items": _whole(notes, count, rng)})
    items = []
    for number in range(count):
        region = regions[(number + rng.randrange(len(regions))) % len(regions)]
        items.append(_item(region, regions, number, rng, wrong=rng.random() < mistakes))
    return json.dumps({"items": items})


def _noted(match: re.Match[str]) -> _Noted:
    attributes = re.findall(_STRING, match["attributes"] or "")
    tag = f"[{match['id']}]" if match["id"] else json.loads(match["handle"])
    caption = json.loads(match["caption"]) if match["caption"] else ""
    return _Noted(tag, json.loads(match["name"]), caption, tuple(map(json.loads, attributes)))


def _item(
    region: _Noted, regions: list[_Noted], number: int, rng: random.Random, *, wrong: bool
) -> dict[str, str]:
    look, name = region.look, region.name
    if wrong:
        other = [r for r in regions if r.look != look]
        look = rng.choice(other).look if other else rng.choice(_OTHERS)
    kinds: list[tuple[str, str, str]] = [
        (
            f"What can be said about {region.tag}?",
            f"{region.tag} is {look}.",
            f"{region.tag} is the {name}, which looks {look}.",
        ),
        (
            f"How does one tell {region.tag} from the rest of the picture?",
            f"By its look: {look}.",
            f"Nothing else here is both {name} and {look} like {region.tag}.",
        ),
    ]
    if len(regions) > 1:
        other_region = rng.choice([r for r in regions if r is not region])
        kinds.append(
            (
                f"What sets {region.tag} apart from {other_region.tag}?",
                f"{region.tag} is {look}.",
                f"{region.tag} looks {look}, and {other_region.tag} looks {other_region.look}.",
            )
        )
    question, answer, rationale = kinds[number % len(kinds)]
    return {"question": question, "answer": answer, "rationale": rationale}


def _whole(notes: str, count: int, rng: random.Random) -> list[dict[str, Any]]:
    texts = [json.loads(text) for text in re.findall(_STRING, notes)] or ["a picture"]
    items = []
    for _ in range(count):
        text = rng.choice(texts)
        items.append(
            {
                "question": "What kind of moment does the picture show?",
                "answer": f"A moment with {text}.",
                "rationale": f"The notes on the picture speak of {text}.",
            }
        )
    return items
