"""Rows without pixels, which a data set makes of records, or the reasons why it cannot."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

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
    """

    index: int
    image_key: str
    text: str
    fields: dict[str, Any]
    texts: tuple[str, ...] | None = None
    parts: tuple[dict[str, str], ...] | None = None
    targets: dict[str, Any] = field(default_factory=dict)
    drawing: Drawing | None = field(default=None, repr=False)

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
