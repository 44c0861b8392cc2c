"""Rows without pixels, which a data set makes of records, or the reasons why it cannot."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from lavis.common.regions.sides import swap_sides

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import Tensor

    from lavis.datasets.files.images import ImageFile
    from lavis.datasets.lck.record import Region
    from lavis.processors.region import DrawnRegion
    from lavis.processors.vlm import ShownImage

Pixels: TypeAlias = "Tensor | ShownImage"  # one image, processed
Images: TypeAlias = "Tensor | Sequence[ShownImage]"  # P of them; see `RecordDataset.collate`


@dataclass(frozen=True, slots=True)
class Drawing:
    """How a row's image is drawn.

    Attributes:
        file: the image as stored.
        regions: every region the row mentions, in order.
        drawn: those that are drawn.
        crop: x1, y1, x2, y2 of the part that is shown, where it is not the whole image.
    """

    file: ImageFile
    regions: tuple[Region, ...] = ()
    drawn: tuple[DrawnRegion, ...] = ()
    crop: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row, without pixels.

    Attributes:
        index: row number over all files, in data-set order; bad rows keep their number.
        image_key: identity of the processed image: equal keys, equal tensors.
        text: processed text; of several candidates the first.
        fields: JSON-able, written into the result row between `text` and `prediction`.
        texts: processed text of every candidate, where the row has more than one.
        parts: `question`, `answer` and `rationale` of every text, unprocessed; a part that a text
            lacks is missing. None where the data set does not tell them apart.
        targets: any of `label` (1 = accept), `qa_label`, `r_label`, `image_id`, `scores`,
            `token_ids`.
        drawing: what `RecordDataset.image` needs.
        mirror: the texts are those of the mirrored image, or not; None where that is left to the
            image processor.
    """

    index: int
    image_key: str
    text: str
    fields: dict[str, Any]
    texts: tuple[str, ...] | None = None
    parts: tuple[dict[str, str], ...] | None = None
    targets: dict[str, Any] = field(default_factory=dict)
    drawing: Drawing | None = field(default=None, repr=False)
    mirror: bool | None = None

    @property
    def all_texts(self) -> tuple[str, ...]:
        """Every text of the row, one or more."""
        return self.texts if self.texts is not None else (self.text,)

    @property
    def all_parts(self) -> tuple[dict[str, str], ...]:
        """`text`, `question`, `answer` and `rationale` of every text; what it lacks is empty."""
        texts = self.all_texts
        parts = self.parts or ({},) * len(texts)
        none = {"question": "", "answer": "", "rationale": ""}
        return tuple({**none, **p, "text": text} for text, p in zip(texts, parts, strict=True))


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that cannot be used: its number, the reason, and its file and line."""

    index: int
    reason: str
    source: dict[str, Any]


def mirrored(row: Row) -> Row | None:
    """Return a row with left and right changed in its texts; None where that is not sure.

    Rows with other facts of places are not mirrored.
    """
    if "word_boxes" in row.targets:
        return None
    texts = [swap_sides(text) for text in row.all_texts]
    parts = [{name: swap_sides(text) for name, text in part.items()} for part in row.parts or ()]
    targets = dict(row.targets)
    for key in ("question", "text_output"):
        if key in targets:
            targets[key] = swap_sides(targets[key])
    if "answers" in targets:
        targets["answers"] = [swap_sides(text) for text in targets["answers"]]
    changed = [*texts, *(text for part in parts for text in part.values())]
    changed += [targets.get(key, "") for key in ("question", "text_output")]
    if None in changed or None in targets.get("answers", ()):
        return None
    return dataclasses.replace(
        row,
        text=str(texts[0]),
        texts=tuple(map(str, texts)) if row.texts is not None else None,
        parts=tuple({k: str(v) for k, v in part.items()} for part in parts) or None,
        targets=targets,
        mirror=True,
    )


def row_random(seed: int, epoch: int, index: int) -> random.Random:
    """Return the random numbers of one row in one epoch, the same in every process."""
    return random.Random(f"{seed}/{epoch}/{index}")


class ImageSource(Protocol):
    """What `lavis.generators.store.ImageStore` offers."""

    @property
    def makes_features(self) -> bool:
        """Whether the generator makes features in place of images."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Return what the images depend on."""
        ...

    def key(self, prompt: str, index: int = 0, seed: int = 0) -> str:
        """Return the key of one image."""
        ...

    def image(self, key: str) -> Image.Image:
        """Return a stored image; raises `DataError` where it is missing."""
        ...

    def text_features(self, requests: Sequence[Any]) -> np.ndarray:
        """Return `(N, P, D)` where the generator makes features."""
        ...


@runtime_checkable
class DrawsImages(Protocol):
    """A data set whose images are made from its texts and kept in a store."""

    name: str
    has_images: bool

    def use_images(self, store: ImageSource | None, *, seed: int) -> None:
        """Take images from a store from now on."""
        ...

    def image_requests(self, epoch: int, seed: int) -> Iterator[tuple[str, int, int]]:
        """Yield prompt, index and seed of the image that each row needs in an epoch."""
        ...
