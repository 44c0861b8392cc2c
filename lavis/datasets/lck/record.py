"""One record of an LCK corpus: its tokens, regions and label, read and checked.

A record is one line of JSON: `image`, `region` (ids the text uses), `region_all`, `references`
(boxes and masks by id), `question`, `answer`, `rationale` (words, and lists of region ids), and for
critic training `label` or `reject_label`, `qa_score`, `r_score`. Every problem raises `RecordError`
with a reason that starts with a fixed phrase and a colon.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lavis.common.errors import REFUSALS, RecordError, finite
from lavis.common.regions.rle import Rle
from lavis.common.regions.shapes import Shape
from lavis.common.regions.transforms import resize_mask
from lavis.datasets.lck.tokens import region_number, shown

_LARGEST_PIXEL = 2**30
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Region:
    """One region of an image.

    Attributes:
        region_id: its id in the record.
        box: x1, y1, x2, y2 in pixels of the full image; x1 <= x2, y1 <= y2, all finite.
        polygons: lists of (x, y) points, or None.
        object_name: the detector's guess, or empty.
        description: a phrase, or empty.
        mask: of the full image, or None.
    """

    region_id: int
    box: Box
    polygons: tuple[tuple[tuple[float, float], ...], ...] | None = None
    object_name: str = ""
    description: str = ""
    mask: Rle | None = None


def name_hash(text: str) -> int:
    """Return a hash of 64 bits: equal texts, equal hashes, in every process."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def read_references(record: Mapping[str, Any]) -> dict[int, Any]:
    """Return what the record itself knows of its regions: id -> entry.

    `references` is a list of entries with a `name`, or a mapping from id to entry; the older
    `references_in_input` is taken where `references` is missing. `mask_rles` lists masks by id,
    for entries without one.

    Raises:
        RecordError: another form.
    """
    value = record.get("references")
    if value is None:
        value = record.get("references_in_input")
    entries = index_entries(value, "references", named=True)
    masks = record.get("mask_rles")
    if masks is None:
        return entries
    if not isinstance(masks, list):
        raise RecordError(f"wrong type: mask_rles is {type(masks).__name__}, expected a list")
    for region_id, mask in enumerate(masks):
        entry = entries.get(region_id, {})
        if mask is not None and isinstance(entry, Mapping) and entry.get("mask") is None:
            entries[region_id] = _with_box({"name": str(region_id), **entry, "mask": mask})
    return entries


def index_entries(value: Any, key: str, *, named: bool) -> dict[int, Any]:
    """Return entries by id of a list (`name`, else index) or mapping; else raises `RecordError`."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return _by_id([(region_number(k), v) for k, v in value.items() if v is not None], key)
    if not isinstance(value, list):
        raise RecordError(f"wrong type: {key} is {type(value).__name__}, expected regions")
    if not named:
        return {place: entry for place, entry in enumerate(value) if entry is not None}
    pairs = []
    for entry in value:
        if not isinstance(entry, Mapping) or "name" not in entry:
            raise RecordError(f"wrong type: {key} holds {shown(entry)}, expected a named region")
        pairs.append((region_number(entry["name"]), entry))
    return _by_id(pairs, key)


def _by_id(pairs: Sequence[tuple[int, Any]], key: str) -> dict[int, Any]:
    """Return entries by id; a duplicate must equal the first."""
    entries: dict[int, Any] = {}
    for region_id, value in pairs:
        entry = _with_box(value)
        if region_id in entries and entries[region_id] != entry:
            raise RecordError(f"duplicate region: {key} holds two of id {region_id}")
        entries[region_id] = entry
    return entries


def make_region(region_id: int, entry: Any) -> Region:
    """Return a region; raises `RecordError` unless its box is 4 or more finite numbers in order.

    A region with a mask needs no box of its own.
    """
    if isinstance(entry, Mapping) and not entry.get("boxes"):
        read_mask(region_id, entry)  # a bad mask is the reason for the missing box
        entry = _with_box(entry)
    boxes = entry.get("boxes") if isinstance(entry, Mapping) else None
    if not isinstance(boxes, list) or not boxes:
        raise RecordError(f"bad box: region {region_id} has none")
    box = boxes[0]
    if not isinstance(box, list) or len(box) < 4:
        raise RecordError(f"bad box: region {region_id} has {shown(box)}, expected 4 numbers")
    numbers = box[:4]  # a fifth is the detector's score
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in numbers):
        raise RecordError(f"bad box: region {region_id} has {shown(box)}, expected 4 numbers")
    corners = [finite(v) for v in numbers]
    if any(v is None or abs(v) >= _LARGEST_PIXEL for v in corners):
        raise RecordError(f"bad box: region {region_id} is not finite: {shown(numbers)}")
    x1, y1, x2, y2 = map(float, numbers)
    if x2 < x1 or y2 < y1:
        raise RecordError(f"bad box: region {region_id} is inverted: {shown(numbers)}")
    return Region(
        region_id,
        (x1, y1, x2, y2),
        _polygons(region_id, entry.get("segms")),
        str(entry.get("obj_guess") or ""),
        str(entry.get("description") or ""),
        read_mask(region_id, entry),
    )


def read_mask(region_id: int, entry: Mapping[str, Any]) -> Rle | None:
    """Return a region's `mask`, run lengths of COCO or a PNG in base64; None where it has none.

    Raises:
        RecordError: another form, or no pixel is inside.
    """
    value = entry.get("mask")
    if value is None:
        return None
    try:
        runs = Rle.of_png(value) if isinstance(value, str) else Rle.of_coco(value)
    except RecordError as error:
        raise RecordError(f"bad mask: region {region_id}, {error.reason[10:]}") from None
    if runs.is_empty:
        raise RecordError(f"bad mask: region {region_id} is empty")
    return runs


def _with_box(entry: Any) -> Any:
    """Return an entry that has a mask and no boxes with the mask's; a bad mask is found later."""
    if not isinstance(entry, Mapping) or entry.get("mask") is None or entry.get("boxes"):
        return entry
    try:
        runs = read_mask(0, entry)
    except RecordError:
        return entry
    return entry if runs is None else {**entry, "boxes": [list(Shape.of_mask(runs).box())]}


def _polygons(region_id: int, value: Any) -> tuple[tuple[tuple[float, float], ...], ...] | None:
    if value is None:
        return None
    try:
        parts = tuple(tuple((float(x), float(y)) for x, y in part) for part in value)
    except REFUSALS:
        raise RecordError(f"bad polygon: region {region_id} has {shown(value)}") from None
    points = [point for part in parts for point in part]
    if not all(math.isfinite(v) and abs(v) < _LARGEST_PIXEL for point in points for v in point):
        raise RecordError(f"bad polygon: region {region_id} is not finite")
    return parts


def read_boxes_size(record: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return `boxes_size`, width and height of the image that boxes are pixels of, where given.

    Without it boxes are pixels of the image as stored.

    Raises:
        RecordError: another form.
    """
    value = record.get("boxes_size")
    if value is None:
        return None
    sides = [finite(side) for side in value] if isinstance(value, list) else []
    if len(sides) != 2 or not all(side is not None and side > 0 for side in sides):
        raise RecordError(f"wrong type: boxes_size is {shown(value)}, expected width and height")
    return sides[0], sides[1]  # type: ignore[return-value]


def scale_region(region: Region, width: float, height: float) -> Region:
    """Return a region with x times `width` and y times `height`."""
    x1, y1, x2, y2 = region.box
    polygons = region.polygons and tuple(
        tuple((x * width, y * height) for x, y in part) for part in region.polygons
    )
    box = (x1 * width, y1 * height, x2 * width, y2 * height)
    mask = region.mask
    if mask is not None:
        sides = max(round(mask.size[0] * width), 1), max(round(mask.size[1] * height), 1)
        mask = resize_mask(mask, sides)
    return dataclasses.replace(region, box=box, polygons=polygons, mask=mask)


def check_inside(regions: Sequence[Region], size: tuple[float, float]) -> None:
    """Raise `RecordError` for a box wholly outside (width, height); as released, others are cut.

    A mask must be of this very size.
    """
    width, height = size
    for region in regions:
        x1, y1, x2, y2 = region.box
        if x2 < 0 or y2 < 0 or x1 >= width or y1 >= height:
            box = shown([x1, y1, x2, y2])
            raise RecordError(
                f"box outside the image: region {region.region_id} {box} in {width} x {height}"
            )
        if region.mask is not None and region.mask.size != (width, height):
            of = " x ".join(map(str, region.mask.size))
            raise RecordError(
                f"bad mask: region {region.region_id} has one of {of} pixels, the image has "
                f"{width} x {height}; name the size of masks and boxes as boxes_size"
            )


def read_label(
    record: Mapping[str, Any], *, polarity: Literal["corrected", "released"] = "corrected"
) -> int | None:
    """Return 1 for accept and 0 for reject, or None where the record has no label.

    `reject_label` 0/1 is turned round. A `label` list of annotators' words accepts with 2 or more
    `accept`; with `released` polarity such a list gives 1 for reject, the opposite, as the
    released code did. A `label` that is 0 or 1 is taken as it is.

    Raises:
        RecordError: a label of another form.
    """
    rejected = record.get("reject_label")
    if rejected is not None:
        if rejected not in (0, 1):
            raise RecordError(f"wrong type: reject_label is {shown(rejected)}, expected 0 or 1")
        return 1 - int(rejected)
    label = record.get("label")
    if label is None:
        return None
    if isinstance(label, list) and all(word in ("accept", "reject") for word in label):
        accepted = label.count("accept") >= 2
        return int(accepted if polarity == "corrected" else not accepted)
    if label in (0, 1) and not isinstance(label, list):
        return int(label)
    raise RecordError(f"wrong type: label is {shown(label)}, expected accept / reject words")


def read_score(record: Mapping[str, Any], key: str) -> float | None:
    """Return `qa_score` or `r_score`, None where missing; raises `RecordError` unless finite."""
    value = record.get(key)
    if value is None:
        return None
    number = finite(value)
    if number is None:
        raise RecordError(f"wrong type: {key} is {shown(value)}, expected a number")
    return number


def read_word_boxes(record: Mapping[str, Any]) -> dict[str, list[Box]] | None:
    """Return `word_boxes`, word -> boxes as shares of the image; None where the key is missing.

    Raises:
        RecordError: another form, or a box outside 0 to 1.
    """
    value = record.get("word_boxes")
    if value is None:
        return None
    try:
        return {str(word): [_share_box(box) for box in boxes] for word, boxes in value.items()}
    except REFUSALS:
        raise RecordError(
            f"wrong type: word_boxes is {shown(value)}, expected word -> [[x1, y1, x2, y2], ...] "
            "in shares of the image"
        ) from None


def _share_box(box: Any) -> Box:
    x1, y1, x2, y2 = (float(number) for number in box)
    if not (0 <= x1 <= x2 <= 1 and 0 <= y1 <= y2 <= 1):
        raise ValueError("outside the image")
    return x1, y1, x2, y2
