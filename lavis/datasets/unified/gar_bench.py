"""GAR-Bench-VQA: questions about one to nine masked regions, with lettered options.

Format as published: a list of `{image, mask_rles, question, choices, answer, type}`. `mask_rles`
are run lengths of COCO, `<PromptN>` in a text is region N of them, a choice is `A. text`, and
`answer` is a letter. What else an item holds, a path of the machine it was made on, is not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lavis.common.errors import RecordError, printable
from lavis.common.pixels import IMAGE_REFUSALS
from lavis.common.regions.shapes import Shape
from lavis.datasets.files.items import FileItem, read_items
from lavis.datasets.lck.record import read_mask
from lavis.datasets.lck.tokens import mentioned
from lavis.datasets.unified.convert import Converter, flag
from lavis.datasets.unified.record import fields, join_path, list_in, make_record, name_in, texts_in

_PROMPT = re.compile(r"<Prompt([0-9]{1,9})>")
_CHOICE = re.compile(r"\s*([A-Z])\s*\.(.*)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class GarBenchConverter(Converter):
    """One record per question, named by its place in the list; `group` is its `type`.

    All regions of an item are in the record, also those that no text names. Boxes and masks are in
    pixels of the masks' size, which the record names.

    Attributes:
        image_root: folder of `image_prefix`; without it images are first missed by the reader.
    """

    image_prefix: str = flag("gar_bench", help="folder of the images below the root of all")
    image_root: Path | None = flag(
        None,
        variable="UNIFIED_IMAGE_DIR",
        type=Path,
        help="where images must be (default: UNIFIED_IMAGE_DIR)",
    )

    def items(self) -> Iterator[FileItem]:
        for item in read_items(self.annotations):
            number = item.place.get("item") or item.place["line"]
            yield FileItem(item.place, (number, item.value), item.error)

    def records(self, value: Any) -> Iterable[dict[str, Any]]:
        number, entry = value[0], fields(value[1])
        image = join_path(self.image_prefix, name_in(entry, "image"))
        kind = name_in(entry, "type")
        regions, size = region_entries(list_in(entry, "mask_rles"))
        question = prompts_to_ids(entry["question"], len(regions))
        choices = options_of(texts_in(entry, "choices"))
        candidates = [prompts_to_ids(text, len(regions)) for text in choices]
        if self.image_root is not None:
            check_image(self.image_root / image, size)
        yield make_record(
            image=image,
            instance_id=str(number),
            question=question,
            candidates=candidates,
            references=regions,
            size=size,
            label=place_of(name_in(entry, "answer"), len(choices)),
            group=kind,
        )


def region_entries(masks: Sequence[Any]) -> tuple[dict[str, Any], tuple[int, int]]:
    """Return the regions of masks by number, and the size of all of them.

    Raises:
        RecordError: no mask, a damaged or empty one, or masks of several sizes.
    """
    entries: dict[str, Any] = {}
    sizes = []
    for number, value in enumerate(masks):
        mask = read_mask(number, {"mask": value})
        if mask is None:
            raise RecordError(f"bad mask: region {number} has none")
        sizes.append(mask.size)
        box = list(Shape.of_mask(mask).box())
        entries[str(number)] = {"boxes": [box], "mask": mask.to_coco(), "obj_guess": ""}
    if not sizes:
        raise RecordError("bad mask: the item has none")
    if len(set(sizes)) > 1:
        listed = ", ".join(f"{width} x {height}" for width, height in sorted(set(sizes)))
        raise RecordError(f"bad mask: one image has masks of {listed} pixels")
    return entries, sizes[0]


def prompts_to_ids(text: Any, count: int) -> list[Any]:
    """Return words, and region ids where the text has `<PromptN>`.

    Args:
        count: of regions, numbered from 0.

    Raises:
        RecordError: not a text, or it names another region.

    Example:
        >>> prompts_to_ids("Is <Prompt1> behind (<Prompt0>)?", 2)
        ['Is', [1], 'behind', '(', [0], ')?']
    """
    if not isinstance(text, str):
        raise RecordError(f"wrong type: {text!r:.60} is not a text")
    tokens: list[Any] = []
    for place, part in enumerate(_PROMPT.split(text)):  # text, number, text, ..., text
        tokens += [[int(part)]] if place % 2 else part.split()
        if not place % 2 and "<prompt" in part.casefold():
            raise RecordError(f"unknown region id: {part.strip()!r:.60}")
    for number in mentioned(tokens):
        if number >= count:
            raise RecordError(f"unknown region id: <Prompt{number}> of {count} masks")
    return tokens


def options_of(choices: Sequence[str]) -> list[str]:
    """Return the texts behind `A. `, `B. ` and so on.

    Raises:
        RecordError: other letters, or none.
    """
    texts = []
    for place, choice in enumerate(choices):
        match = _CHOICE.fullmatch(choice)
        if match is None or match[1] != chr(ord("A") + place):
            raise RecordError(f"wrong letter: choice {place + 1} is {choice!r:.60}")
        texts.append(match[2])
    return texts


def place_of(answer: str, count: int) -> int:
    """Return the place of the choice that a letter names; raises `RecordError` for any other."""
    letter = answer.strip().upper()
    place = ord(letter) - ord("A") if len(letter) == 1 else -1
    if not 0 <= place < count:
        raise RecordError(f"wrong letter: the answer is {answer!r:.60} of {count} choices")
    return place


def check_image(path: Path, size: tuple[int, int]) -> None:
    """Raise `RecordError` where there is no image, or one of other proportions than the masks."""
    try:
        with Image.open(path) as image:
            width, height = image.size
    except IMAGE_REFUSALS:
        raise RecordError(f"missing image: {printable(path.name)}") from None
    if abs(width * size[1] - height * size[0]) > max(width, height, *size):  # beyond rounding
        raise RecordError(
            f"wrong size: the image has {width} x {height} pixels, its masks {size[0]} x {size[1]}"
        )
