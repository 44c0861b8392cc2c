"""The text annotations of an image: one line of a verbalized region mapping, checked."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lavis.common.errors import REFUSALS, RecordError, finite, record_errors
from lavis.common.text import fold, letter_runs, num_words, words

PEOPLE = frozenset(
    "person people man men woman women boy girl child children kid baby toddler guy lady player "
    "worker officer policeman soldier chef waiter bride groom skier surfer rider crowd".split()
)

MAX_PHRASE = 8  # words of a caption that names a region


@dataclass(frozen=True, slots=True)
class RegionNotes:
    """One region.

    Attributes:
        id: its index in `region_locations`, which is its id in every LCK record.
        name: the detector's guess, such as `person`.
        caption: a description, or empty.
        position: such as `left` or `top right`; empty if the image's size is unknown.
        handle: a phrase unique in the image, to name the region without a number.
        boxes: `[[x1, y1, x2, y2]]`, pixels of the full image.
        segms: polygons, or None.
    """

    id: int
    name: str
    caption: str
    attributes: tuple[str, ...]
    position: str
    handle: str
    boxes: list[list[float]]
    segms: Any = None

    @property
    def is_person(self) -> bool:
        """Return whether the region's name is a word for people."""
        return not PEOPLE.isdisjoint(letter_runs(fold(self.name)))


@dataclass(frozen=True, slots=True)
class SceneNotes:
    """One image.

    Attributes:
        image: its file, relative to the image root.
        regions: those that a prompt shows, in order of their ids.
        captions, narratives, places, objects, actions: texts, best first.
        dialogue: (question, answer) pairs.
    """

    image: str
    regions: tuple[RegionNotes, ...] = ()
    captions: tuple[str, ...] = ()
    narratives: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    dialogue: tuple[tuple[str, str], ...] = ()

    def find(self, region_id: int) -> RegionNotes | None:
        """Return a region by its id."""
        return next((region for region in self.regions if region.id == region_id), None)


@dataclass(frozen=True)
class SceneLimits:
    """How much of a record a prompt shows."""

    max_regions: int = 10
    max_captions: int = 5
    max_narratives: int = 2
    max_concepts: int = 5
    max_dialogue: int = 8
    people_first: bool = False


@record_errors("malformed record")
def read_scene(record: Mapping[str, Any], limits: SceneLimits) -> SceneNotes:
    """Return a record's scene; raises `RecordError` without an image's name or a region's box."""
    image = record.get("image")
    if not isinstance(image, str) or not image:
        raise RecordError("missing field: image")
    concepts = record.get("concepts")
    concepts = concepts if isinstance(concepts, Mapping) else {}
    dialogue = [
        (str(turn["question"]), str(turn["answer"]))
        for turn in _list(record.get("dynamic"))
        if isinstance(turn, Mapping) and turn.get("question") and turn.get("answer")
    ]
    return SceneNotes(
        image=image,
        regions=_regions(record, limits),
        captions=_texts(record.get("captions"), limits.max_captions),
        narratives=_texts(record.get("narratives"), limits.max_narratives),
        places=_texts(concepts.get("places"), limits.max_concepts),
        objects=_texts(concepts.get("objects"), limits.max_concepts),
        actions=_texts(concepts.get("actions"), limits.max_concepts),
        dialogue=tuple(dialogue[: limits.max_dialogue]),
    )


def _regions(record: Mapping[str, Any], limits: SceneLimits) -> tuple[RegionNotes, ...]:
    value = record.get("region_locations") or []
    if isinstance(value, Mapping):
        entries = [(_number(key), entry) for key, entry in value.items()]
    elif isinstance(value, list):
        entries = list(enumerate(value))
    else:
        raise RecordError(f"wrong type: region_locations is {type(value).__name__}")
    size = (record.get("width"), record.get("height"))
    regions = [_region(number, entry, size) for number, entry in entries if entry is not None]
    if limits.people_first:
        regions.sort(key=lambda region: not region.is_person)
    kept = sorted(regions[: limits.max_regions], key=lambda region: region.id)
    return _with_handles(kept)


def _region(number: int, entry: Any, size: tuple[Any, Any]) -> RegionNotes:
    boxes = entry.get("boxes") if isinstance(entry, Mapping) else None
    box = boxes[0] if isinstance(boxes, list) and boxes else None
    numbers = box[:4] if isinstance(box, list) else []
    if len(numbers) != 4 or any(finite(v) is None for v in numbers):
        raise RecordError(f"bad box: region {number} has {str(box)[:60]}, expected 4 numbers")
    return RegionNotes(
        id=number,
        name=str(entry.get("obj_guess") or "thing"),
        caption=str(entry.get("caption") or entry.get("description") or ""),
        attributes=_texts(entry.get("attributes"), 6),
        position=_position(numbers, size),
        handle="",
        boxes=[list(numbers)],
        segms=entry.get("segms"),
    )


def _position(box: Sequence[float], size: tuple[Any, Any]) -> str:
    """Return the position of a box's centre, by thirds of the image."""
    width, height = map(finite, size)
    if width is None or height is None or width <= 0 or height <= 0:
        return ""
    x, y = (box[0] + box[2]) / 2 / width, (box[1] + box[3]) / 2 / height
    across = "left" if x < 1 / 3 else "right" if x > 2 / 3 else ""
    down = "top" if y < 1 / 3 else "bottom" if y > 2 / 3 else ""
    return " ".join(part for part in (down, across) if part) or "middle"


def _with_handles(regions: Sequence[RegionNotes]) -> tuple[RegionNotes, ...]:
    """Give each region a unique phrase: description, then position, then ordinal."""
    taken: set[str] = set()
    named = []
    for region in regions:
        base = _phrase(region)
        tries = [base, f"{base} at the {region.position}"] if region.position else [base]
        tries += [f"{ordinal} {base}" for ordinal in ("second", "third", "fourth", "fifth")]
        numbers = (f"{base} number {number}" for number in itertools.count(region.id))
        handle = next(t for t in itertools.chain(tries, numbers) if fold(t) not in taken)
        taken.add(fold(handle))
        named.append(replace(region, handle=f"the {handle}"))
    return tuple(named)


def _phrase(region: RegionNotes) -> str:
    """Return a region's caption if it is short, else its attributes and name."""
    phrase = words(region.caption.lower(), hyphens=True)
    if phrase[:1] and phrase[0] in ("a", "an", "the"):
        phrase = phrase[1:]
    if not 1 <= len(phrase) <= MAX_PHRASE or sum(map(num_words, phrase)) > MAX_PHRASE:
        parts = [*region.attributes[:2], region.name]
        phrase = words(" ".join(parts).lower(), hyphens=True)
    return " ".join(phrase) or "thing"


def _texts(value: Any, most: int) -> tuple[str, ...]:
    """Return texts of a list of strings, or of `{"text": ...}` entries."""
    texts = [item.get("text") if isinstance(item, Mapping) else item for item in _list(value)]
    return tuple(str(text) for text in texts if isinstance(text, str) and text.strip())[:most]


def _list(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    return [] if value is None else [value]


def _number(key: Any) -> int:
    try:
        return int(key)
    except REFUSALS:
        raise RecordError(f"wrong type: region id {str(key)[:40]!r} is not a number") from None
