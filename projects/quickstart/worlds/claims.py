"""What a scripted, erring teacher says of a scene: questions, answers, rationales, statements."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass

from projects.quickstart import openmoji
from projects.quickstart.worlds.scenes import (
    COLOURS,
    PAINTED,
    SIDE,
    Scene,
    drawing,
)

Tokens = list[str | list[int]]
COLOURS_A_PLACE = 2  # questions for colours to one for a place: colours are harder to learn
WRONG = 0.42  # share of wrong answers; repeated correct ones are left out, which makes it 0.45
APART = 20  # least distance in pixels between centres for left/right


@dataclass(frozen=True, slots=True)
class Qar:
    """A teacher's record before it is written; `error` is "" where it is correct."""

    kind: str
    error: str
    about: int  # the thing asked for
    question: Tokens
    answer: Tokens
    rationale: Tokens
    qa_score: float


def with_article(word: str) -> list[str]:
    """`["an", "onion"]`, `["a", "car"]`, `["some", "jeans"]`."""
    if word in ("jeans", "socks", "gloves", "grapes", "cherries", "scissors", "maracas"):
        return ["some", word]
    return ["an" if word[0] in "aeiou" else "a", word]


def ask_object(rng: random.Random, scene: Scene, about: int, wrong: bool) -> Qar:
    """What is it? A wrong teacher names another thing of the scene or an object not there."""
    said, error, score = scene.things[about].word, "", 1.0
    if wrong:
        there = [t.word for i, t in enumerate(scene.things) if i != about]
        said, error, score = rng.choice(there), "wrong_region", 0.0
        if rng.random() < 0.5:
            said = rng.choice(sorted(set(openmoji.catalogue()) - {t.word for t in scene.things}))
            error = "wrong_object"
            score = 0.5 * (openmoji.catalogue()[said].kind == scene.things[about].kind)
    words = with_article(said)
    rationale: Tokens = [[about], "has", "the", "shape", "of", *words[:-1], f"{said}."]
    return Qar("object", error, about, ["What", "is", [about], "?"], _end(words), rationale, score)


def ask_kind(rng: random.Random, scene: Scene, about: int, wrong: bool) -> Qar:
    """What kind of thing is it? Wrong: the kind of another thing, there or not."""
    true = scene.things[about].kind
    said, error = true, ""
    if wrong:
        there = [t.kind for t in scene.things if t.kind != true]
        said, error = rng.choice([kind for kind in openmoji.KINDS if kind != true]), "wrong_object"
        if there and rng.random() < 0.5:
            said, error = rng.choice(there), "wrong_region"
    question: Tokens = ["What", "kind", "of", "thing", "is", [about], "?"]
    rationale: Tokens = [[about], "belongs", "to", "the", said, "kind."]
    answer = _end(["clothing"] if said == "clothing" else with_article(said))
    return Qar("kind", error, about, question, answer, rationale, float(not wrong))


def any_colour(rng: random.Random, *, but: str) -> str:
    """A colour drawn as scenes draw them, so that wrong answers are no rarer than right ones."""
    colour = None
    while colour is None or colour == but:
        word = rng.choice(sorted(openmoji.catalogue()))
        colour = drawing(word, rng.choice(COLOURS) if rng.random() < PAINTED else None)[1]
    return colour


def ask_colour(rng: random.Random, scene: Scene, about: int, wrong: bool) -> Qar | None:
    """What colour is it? None where the thing has no clear colour."""
    true = scene.things[about].colour
    if true is None or scene.things[about].share < scene.clear:
        return None
    said, error = true, ""
    if wrong:
        there = [t.colour for t in scene.things if t.colour not in (None, true)]
        said, error = any_colour(rng, but=true), "wrong_colour"
        if there and rng.random() < 0.5:
            said, error = str(rng.choice(there)), "wrong_region"
    question: Tokens = ["What", "colour", "is", [about], "?"]
    rationale: Tokens = ["most", "of", [about], "is", "painted", f"{said}."]
    return Qar("colour", error, about, question, [f"{said}."], rationale, float(not wrong))


def ask_relation(rng: random.Random, scene: Scene, about: int, wrong: bool) -> Qar | None:
    """Which side of another highlighted thing is it on? None where no other one is clear."""
    here = scene.things[about].centre[0]
    others = [i for i in scene.drawn if abs(scene.things[i].centre[0] - here) >= APART]
    if not others:
        return None
    other = rng.choice(others)
    left = (here < scene.things[other].centre[0]) != wrong
    side = "left" if left else "right"
    answer: Tokens = [side, "of", [other], "."]
    rationale: Tokens = [[about], "is", "nearer", "to", "the", side, "edge", "than", [other], "."]
    question: Tokens = ["Where", "is", [about], "?"]
    error = "wrong_relation" if wrong else ""
    return Qar("relation", error, about, question, answer, rationale, float(not wrong))


def _end(words: list[str]) -> Tokens:
    return [*words[:-1], f"{words[-1]}."]


ASK = {"object": ask_object, "kind": ask_kind, "colour": ask_colour, "relation": ask_relation}


def ask(
    rng: random.Random, scene: Scene, count: int, *, colours: int = COLOURS_A_PLACE
) -> Iterator[Qar]:
    """Up to `count` different records on a scene's highlighted things, kind after kind in turn."""
    kinds = ("colour", "relation", "colour")[: colours + 1] if scene.looking else ("object", "kind")
    seen: set[str] = set()
    for number in range(3 * count):
        about, wrong = rng.choice(scene.drawn), rng.random() < WRONG
        qar = ASK[kinds[number % len(kinds)]](rng, scene, about, wrong)
        key = qar and json.dumps([qar.question, qar.answer])
        if qar is not None and key not in seen:
            seen.add(str(key))
            yield qar
        if len(seen) == count:
            return


def state(rng: random.Random, qar: Qar) -> Tokens:
    """Say a record's claim in one short statement."""
    manner: Tokens = ["is"]
    if qar.kind == "kind":
        manner = ["is", "a", "kind", "of"]
        return [[qar.about], *manner, qar.answer[-1]]
    if qar.kind == "object" and rng.random() < 0.5:
        manner = ["has", "the", "shape", "of"]
    if qar.kind == "colour" and rng.random() < 0.5:
        manner = ["is", "painted"]
    return [[qar.about], *manner, *qar.answer]


def state_place(rng: random.Random, scene: Scene) -> tuple[Tokens, bool] | None:
    """Say on which side of the image a thing is, and whether that is true."""
    about, true = rng.choice(scene.drawn), rng.random() < 0.5
    x = scene.things[about].centre[0]
    if abs(x - SIDE / 2) < APART / 2:
        return None
    side = "left" if (x < SIDE / 2) == true else "right"
    return [[about], "is", "on", "the", side, "side."], true
