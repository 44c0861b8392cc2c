"""Regions as text that a vision-language model understands, and back: the two front doors.

convention = convention_of("qwen3_vl", processor.image_processor.to_dict())
words = to_model([Shape.of_box((100.5, 40, 611, 799))], image.size, convention)
for reply in from_model(text, image.size, convention): ...
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lavis.common.errors import ConfigError
from lavis.common.regions import lists, styles
from lavis.common.regions.grids import (
    check_size,
    numbers_of_shape,
    rounding_bound,
    shape_of_mention,
)
from lavis.common.regions.mentions import Mention, Mentions, RegionTextError, shown
from lavis.common.regions.shapes import Shape, Size
from lavis.common.regions.table import Convention, convention, convention_of

__all__ = [
    "Convention",
    "RegionReplies",
    "RegionReply",
    "RegionTextError",
    "convention",
    "convention_of",
    "from_model",
    "rounding_bound",
    "to_model",
    "write_reply",
]

_WRITERS: dict[str, styles.Writer] = {
    "json": lists.write_json,
    "list": lists.write_list,
    "qwen_tags": styles.write_qwen_tags,
    "ref_box": styles.write_ref_box,
    "loc4": styles.write_loc4,
    "loc_bins": styles.write_loc_bins,
    "patches": styles.write_patches,
    "points": styles.write_points,
    "point_percent": styles.write_point_percent,
}
_READERS: dict[str, styles.Reader] = {
    "json": lists.read_lists,
    "list": lists.read_lists,
    "qwen_tags": styles.read_qwen_tags,
    "ref_box": styles.read_ref_box,
    "loc4": styles.read_loc4,
    "loc_bins": styles.read_loc_bins,
    "patches": styles.read_patches,
    "points": styles.read_points,
    "point_percent": styles.read_point_percent,
}
_MARKS = re.compile(r"<\|[a-z_]+\|>|</?s>|<(?:bos|eos|pad)>")  # of a reply's ends
_EMPTY_LIST = re.compile(r"(?:```\w*)?\s*\[\s*\]\s*(?:```)?")


@dataclass(frozen=True, slots=True)
class RegionReply:
    """A region that a model wrote.

    Attributes:
        label: its name, or empty.
        shape: a box or a point in pixels of the image.
        clipped: the model's place went over the image's edge.
    """

    label: str
    shape: Shape
    clipped: bool


class RegionReplies(list[RegionReply]):
    """The regions of a reply, in its order.

    Attributes:
        dropped: how many more were begun when the reply ended.
    """

    dropped: int = 0


def to_model(
    shapes: Sequence[Shape],
    size: Size,
    convention: Convention,
    labels: Sequence[str] | None = None,
) -> list[str]:
    """Return a text for each shape.

    Args:
        shapes: in pixels of the image.
        size: width and height of the image, before the model's own resizing.
        convention: of the model.
        labels: names of the regions, where they have any.

    Raises:
        RegionTextError: a shape outside the image, or of a kind that the model has no text for.
        ConfigError: the model has no documented text for regions.

    Example:
        >>> to_model([Shape.of_box((100.5, 40, 611, 799))], (1280, 853), convention("per_mille"))
        ['[79, 47, 477, 937]']
    """
    write = _WRITERS[_style(convention)]
    items = _mentions(shapes, size, convention, labels)
    return [write(item.numbers, item.label, convention) for item in items]


def write_reply(
    shapes: Sequence[Shape],
    size: Size,
    convention: Convention,
    labels: Sequence[str] | None = None,
) -> str:
    """Return what the model itself would write for all shapes, as a target for tuning.

    Arguments and errors are those of `to_model`.
    """
    items = _mentions(shapes, size, convention, labels)
    if convention.style == "points":
        return styles.join_points(items)
    if convention.style == "point_percent":
        return styles.join_point_percent(items)
    texts = to_model(shapes, size, convention, labels)
    if convention.style == "json":
        return lists.join_json(texts)
    return (" ; " if convention.style == "loc4" else "").join(texts)


def from_model(text: str, size: Size, convention: Convention) -> RegionReplies:
    """Return the regions of a reply, in pixels of the image.

    A reply that ends within a region keeps the ones before and says how many it lost (`dropped`).

    Args:
        text: the whole reply; what a thinking model wrote before `</think>` is left out.
        size: width and height of the image, before the model's own resizing.
        convention: of the model.

    Raises:
        RegionTextError: no region where the reply is no word for none, or one that the convention
            cannot mean; the text is in the message.
        ConfigError: the model has no documented text for regions.

    Example:
        >>> found = from_model("a dog [79, 47, 477, 937]", (1280, 853), convention("per_mille"))
        >>> [(one.label, one.shape.value) for one in found]
        [('a dog', (101.12, 40.091, 610.56, 799.261))]
    """
    style = _style(convention)
    check_size(size)
    answer = _without_thoughts(text)
    mentions: Mentions = _READERS[style](answer, convention)
    if not mentions.items and not _says_none(answer, convention):
        cause = "the reply is cut" if mentions.dropped else "no region"
        raise RegionTextError(f"{cause}: {shown(answer)}")
    replies = RegionReplies()
    replies.dropped = mentions.dropped
    for mention in mentions.items:
        shape, clipped = shape_of_mention(mention, size, convention)
        replies.append(RegionReply(mention.label, shape, clipped))
    return replies


def _mentions(
    shapes: Sequence[Shape], size: Size, convention: Convention, labels: Sequence[str] | None
) -> list[Mention]:
    _style(convention)
    check_size(size)
    names = [""] * len(shapes) if labels is None else [_one_line(label) for label in labels]
    if len(names) != len(shapes):
        raise ValueError(f"{len(shapes)} shapes and {len(names)} labels")
    found = []
    for shape, name in zip(shapes, names, strict=True):
        numbers = numbers_of_shape(shape, size, convention)
        found.append(Mention(name, numbers, "", len(numbers) == 2))
    return found


def _style(convention: Convention) -> str:
    if convention.style is None:
        raise ConfigError(
            f"{convention.family} has no documented text for regions; draw or number them "
            "(shows: drawn, marks, crops), or name a convention by hand: unit, per_mille ..."
        )
    return convention.style


def _one_line(label: str) -> str:
    """Return a label without what would end it: line ends and angle brackets."""
    return " ".join(re.sub(r"[<>]", " ", label).split())


def _without_thoughts(text: str) -> str:
    """Return what follows a model's thoughts; raises `RegionTextError` where these are cut."""
    _, end, after = text.rpartition("</think>")
    if not end and after.lstrip().startswith("<think>"):
        raise RegionTextError(f"the reply is cut: {shown(text)}")
    return after


def _says_none(text: str, convention: Convention) -> bool:
    plain = _MARKS.sub("", text).strip()
    return bool(_EMPTY_LIST.fullmatch(plain)) or plain.lower() in convention.nothing
