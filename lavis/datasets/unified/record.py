"""Records of images with candidate texts, and the parts they are made from.

A record holds `image`, `references` (region id -> `boxes` in pixels, `obj_guess`), `text_input`
(words, and lists of region ids), `answer_prefix`, `choices` (each with `text_output`, and people's
`score` or `truth`), `label`, `instance_id`, `group`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from lavis.common.errors import RecordError
from lavis.common.pixels import IMAGE_REFUSALS
from lavis.common.regions.transforms import resize_mask
from lavis.datasets.lck.record import check_inside, make_region, read_mask
from lavis.datasets.lck.tokens import region_number


def make_record(
    *,
    image: str,
    instance_id: str,
    question: Sequence[Any],
    candidates: Sequence[Sequence[Any]],
    references: Mapping[str, Any] | None = None,
    size: tuple[float, float] | None = None,
    answer_prefix: str = "Answer:",
    label: int | None = None,
    scores: Sequence[Any] | None = None,
    truths: Sequence[int] | None = None,
    group: str | None = None,
) -> dict[str, Any]:
    """Return a checked record.

    Args:
        image: path below the folder of all images.
        question: `text_input`, words and lists of region ids.
        candidates: C token lists.
        references: region id -> entry.
        size: width and height of the image that boxes are pixels of and inside; readers scale
            the boxes to the size of their file.
        label: index of the right candidate.
        scores: C scores, or C lists with one score per rater.
        truths: C values, 0 or 1.
        group: key by which results are also listed.

    Raises:
        RecordError: fewer than two candidates, an empty one, a bad label, or a bad box.
    """
    if len(candidates) < 2:
        raise RecordError(f"too few candidates: {len(candidates)}")
    if not all(candidates):
        raise RecordError("empty candidate: one has no words")
    if not question:
        raise RecordError("empty question: it has no words")
    if label is not None and (isinstance(label, bool) or not isinstance(label, int)):
        raise RecordError(f"wrong type: label {label!r:.60} is not a whole number")
    if label is not None and not 0 <= label < len(candidates):
        raise RecordError(f"wrong label: {label} of {len(candidates)} candidates")
    regions = [make_region(int(name), entry) for name, entry in (references or {}).items()]
    if size is not None:
        if not all(math.isfinite(side) and side > 0 for side in size):
            raise RecordError(f"wrong size: {size[0]} x {size[1]} is no size of an image")
        check_inside(regions, size)
    choices: list[dict[str, Any]] = [{"text_output": list(tokens)} for tokens in candidates]
    for key, values in (("score", scores), ("truth", truths)):
        if values is not None:
            for choice, value in zip(choices, values, strict=True):
                choice[key] = value
    record: dict[str, Any] = {
        "image": image,
        "instance_id": instance_id,
        "references": dict(references or {}),
        "text_input": list(question),
        "answer_prefix": answer_prefix,
        "choices": choices,
    }
    if size is not None and references:
        record["boxes_size"] = list(size)
    if label is not None:
        record["label"] = label
    if group is not None:
        record["group"] = group
    return record


def fields(value: Any) -> Mapping[str, Any]:
    """Return an item that is an object; raises `RecordError` for anything else."""
    if not isinstance(value, Mapping):
        raise RecordError(f"wrong type: the item is {type(value).__name__}, expected an object")
    return value


def name_in(node: Mapping[str, Any], key: str) -> str:
    """Return a name or number as text; raises `RecordError` where there is none."""
    value = node.get(key)
    if value is None or value == "":
        raise RecordError(f"missing field: {key}")
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise RecordError(f"wrong type: {key} is {type(value).__name__}, expected a name")
    return str(value)


def list_in(node: Mapping[str, Any], key: str) -> list[Any]:
    """Return a list; raises `RecordError` for anything else: a text would yield its letters."""
    value = node.get(key)
    if value is None:
        raise RecordError(f"missing field: {key}")
    if not isinstance(value, list):
        raise RecordError(f"wrong type: {key} is {type(value).__name__}, expected a list")
    return value


def texts_in(node: Mapping[str, Any], key: str) -> list[str]:
    """Return a list of texts; raises `RecordError` for anything else."""
    texts = list_in(node, key)
    for text in texts:
        if not isinstance(text, str):
            raise RecordError(f"wrong type: {key} holds {type(text).__name__}, expected texts")
    return texts


def scaled(
    references: Mapping[str, Any], size: tuple[float, float], image: Path | None
) -> tuple[dict[str, Any], tuple[float, float]]:
    """Return regions in pixels of an image's file, and its size.

    Where there is no such file, or it cannot be read, they stay in pixels of `size`, which the
    record then names, so that readers scale them.

    Args:
        references: region id -> entry with `boxes` (and a `mask`), in pixels of `size`.
        size: width and height that the annotation states.
        image: the file.
    """
    stored = _size_of(image) if image is not None else None
    if stored is None or stored == size or not all(side > 0 for side in size):
        return dict(references), size
    factors = (stored[0] / size[0], stored[1] / size[1])
    moved = {}
    for name, entry in references.items():
        moved[name] = {**entry, "boxes": [_scaled_box(box, factors) for box in entry["boxes"]]}
        mask = read_mask(region_number(name), entry)
        if mask is not None:
            moved[name]["mask"] = resize_mask(mask, stored).to_coco()
    return moved, stored


def _size_of(path: Path) -> tuple[int, int] | None:
    try:
        with Image.open(path) as image:
            return image.size
    except IMAGE_REFUSALS:
        return None  # reported where the record is read, if the file is missing by then


def _scaled_box(box: Sequence[float], factors: tuple[float, float]) -> list[float]:
    x1, y1, x2, y2, *score = box
    return [x1 * factors[0], y1 * factors[1], x2 * factors[0], y2 * factors[1], *score]


def join_path(folder: str, name: str) -> str:
    """Return `folder/name` with single slashes; `name` alone where there is no folder."""
    return f"{folder.strip('/')}/{name}" if folder.strip("/") else name


def words(text: str) -> list[str]:
    """Return a text's blank-separated words; raises `RecordError` where it is not a text."""
    if not isinstance(text, str):
        raise RecordError(f"wrong type: {text!r:.60} is not a text")
    return text.split()


# A whole word that is a number, but for punctuation around it and a possessive ending: nothing in
# "2-year-old", "3:00", "$3", "1.5" and "1st" is a person.
_PERSON = re.compile(r"""([("'\[]*)([1-9][0-9]{0,3})((?:['\u2019]s?)?[])"'.,;:!?]*)""")


def person_of(word: str) -> int | None:
    """Return the number, from 1, of the person that a word names, or None."""
    match = _PERSON.fullmatch(word)
    return int(match[2]) if match else None


def numbers_to_ids(text: str, people: int) -> list[Any]:
    """Return words with whole numbers from 1 to `people` as region ids from 0.

    VisualCOMET numbers people from 1, by the place of their box in the image's metadata.
    """
    tokens: list[Any] = []
    for word in words(text):
        match = _PERSON.fullmatch(word)
        if match is None or int(match[2]) > people:
            tokens.append(word)
            continue
        before, number, after = match.groups()
        tokens += [part for part in (before, [int(number) - 1], after) if part]
    return tokens
