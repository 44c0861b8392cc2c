"""Scenes of pictograms, their facts, and which objects a split may ask about.

Naming scenes show any object and are asked for objects and kinds. Looking scenes are asked for
colours and places; they show only objects of their own split, so no object that is asked for its
colour or place in validation or test is seen in a training scene that asks for either.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from PIL import Image

from projects.quickstart import openmoji

SIDE = 128  # pixels; nine cells of 42 pixels hold at most one pictogram each
CELL = 42
SIZES = (40, 43, 46)
GROUNDS = ((255, 255, 255), (250, 244, 232), (238, 244, 250))
PAINTED = 0.6  # share of the things painted in a random colour
TOLD = 0.55  # least share of the dominant colour for a thing to have that colour
CLEAR = 0.65  # least share for the teacher to be asked for it
COLOURS = ("red", "yellow", "green", "blue", "purple", "brown", "grey")  # no near neighbours


@dataclass(frozen=True, slots=True)
class Thing:
    """One pictogram of a scene; `box` is tight; no `colour` where none has the share `TOLD`."""

    word: str
    kind: str
    colour: str | None
    share: float  # of the dominant colour in what is painted
    box: tuple[int, int, int, int]

    @property
    def centre(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


@dataclass(frozen=True, slots=True)
class Scene:
    """An image's facts: `drawn` are the highlighted things in the order of their numbers, and a
    colour is asked for where its share is at least `clear`."""

    name: str
    looking: bool
    things: list[Thing]
    drawn: list[int]
    clear: float = CLEAR


@cache
def words_of(split: str) -> tuple[str, ...]:
    """Objects whose colour and place are asked for in this split; disjoint between splits."""
    chosen = {"train": range(6), "val": range(6, 7), "test": range(7, 9)}[split]
    kinds = [entry.split() for entry in openmoji.KINDS.values()]
    return tuple(words[i].partition("=")[0] for words in kinds for i in chosen)


@cache
def drawing(word: str, paint: str | None) -> tuple[Image.Image, str | None, float]:
    """The pictogram at twice the largest size, its colour as measured and that colour's share."""
    image = openmoji.render(word, 2 * SIZES[-1], colour=paint)
    colour, share = openmoji.dominant_colour(image.resize((SIZES[-1], SIZES[-1])))
    told = share >= TOLD and colour in COLOURS and paint in (None, colour)
    return image, colour if told else None, share


@cache
def stamp(word: str, size: int, paint: str | None) -> Image.Image:
    """The pictogram cut to its painted pixels."""
    image = drawing(word, paint)[0].resize((size, size), Image.Resampling.LANCZOS)
    box = image.getchannel("A").point(lambda alpha: 255 * (alpha >= 128)).getbbox()
    return image.crop(box)


def make_scene(
    name: str, rng: random.Random, *, looking: bool, words: tuple[str, ...]
) -> tuple[Scene, Image.Image]:
    """Place 2-5 different objects in different cells; half of them in another colour."""
    image = Image.new("RGB", (SIDE, SIDE), rng.choice(GROUNDS))
    count = min(rng.randint(2, 5), len(words))
    things: list[Thing] = []
    cells = rng.sample(range(9), count)
    for word, cell in zip(rng.sample(words, count), cells, strict=True):
        paint = rng.choice(COLOURS) if rng.random() < PAINTED else None
        cut = stamp(word, rng.choice(SIZES), paint)
        left = cell % 3 * CELL + 1 + rng.randint(0, CELL - cut.width)
        top = cell // 3 * CELL + 1 + rng.randint(0, CELL - cut.height)
        image.paste(cut, (left, top), cut)
        box = (left, top, left + cut.width - 1, top + cut.height - 1)
        _, colour, share = drawing(word, paint)
        things.append(Thing(word, openmoji.catalogue()[word].kind, colour, share, box))
    drawn = rng.sample(range(count), min(count, rng.randint(2, 3)))
    return Scene(name, looking, things, drawn), image
