"""Base of all data sets: cheap rows, images on demand, and batches of both.

Shapes: N texts, P distinct images, S image size, T vision tokens, D vision width. Rows, records
and drawn images need no torch; it is imported when a tensor is made.
"""

from __future__ import annotations

import abc
import copy
import dataclasses
import hashlib
import json
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from lavis.common.errors import ConfigError, DataError, RecordError, record_errors
from lavis.common.storage.inputs import Input, Watch
from lavis.datasets.config import DatasetConfig, is_train_split
from lavis.datasets.files.formats import open_records
from lavis.datasets.files.images import ImageFile, ImageRoot, decode_image
from lavis.datasets.files.records import RecordStore
from lavis.datasets.lck.marks import RegionMark, row_marks
from lavis.datasets.lck.record import check_inside
from lavis.datasets.rows import Drawing, RejectedRow, Row, mirrored, row_random
from lavis.processors import load_processor
from lavis.processors.region import Palette, draw_regions, outline_width

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from lavis.datasets.rows import Images, Pixels

_KEPT_PIXELS = 16_000_000  # a decoded image up to this size is kept for the next row


class RecordDataset(abc.ABC):
    """Records of one split, with the processors of its kind (`train*`: train, else eval).

    Args:
        config: the data set's section.
        split: a key of `build_info.annotations`.
        name: the registered name.

    Raises:
        DataError: a record file that cannot be read, or no rows at all.
        ConfigError: the split is not configured.
    """

    config_class: ClassVar[type[DatasetConfig]]
    has_images: bool = True  # False: `image` is never called
    reads_images: bool = True  # False: what stands for them was made before
    images: ImageRoot
    palette: Palette = "released"
    line_width: int | Literal["auto"] = 2

    def __init__(self, config: DatasetConfig, split: str, *, name: str) -> None:
        self.config = config
        self.name = name
        self.split = split
        self.is_train = is_train_split(split)
        root = config.image_root(split) or "."
        self.images = ImageRoot(root, follow_symlinks=config.follow_symlinks)
        self.store = self._open_store()
        if not len(self.store):
            paths = ", ".join(config.record_paths(split)[:3])
            raise DataError(f"datasets.{name}, split {split}: no records in {paths}")
        vis, text = config.processor("vis", split), config.processor("text", split)
        self.vis_processor = load_processor(vis["name"], vis)
        self.text_processor = load_processor(text["name"], text)
        self._last: tuple[ImageFile, Image.Image] | None = None
        self._style: str | None = None

    def _open_store(self) -> RecordStore:
        return open_records(self.config.record_paths(self.split), cache_dir=self.config.cache_dir)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None}

    def __len__(self) -> int:
        return len(self.store)

    def row(self, index: int, rng: random.Random | None = None) -> Row:
        """Return one row, augmented by `rng` if any; raises `RecordError`, with a `reason`."""
        with record_errors("malformed record"):
            return self._read_row(index, rng)

    @abc.abstractmethod
    def _read_row(self, index: int, rng: random.Random | None) -> Row:
        """Return one row; `row` turns any error that its values cause in a parser into a reject."""

    def image(self, row: Row, rng: random.Random | None = None) -> Pixels:
        """Return the decoded, drawn and processed image, (3, S, S) float32.

        A processor that keeps images (`vlm_image`) draws, and shows them at their own size.

        Raises:
            RecordError: the image cannot be used; `reason` says why.
            ConfigError: no image processor is configured.
        """
        self.check_processor("{name: blip_image_eval, image_size: ...}")
        drawing = _drawing(row)
        boxes = [drawing.regions[i].box for i in range(len(drawing.drawn))]
        with record_errors("broken image"):
            if self.vis_processor.keeps_image:
                image, width = self._undrawn(row)
                return self.vis_processor(
                    image, rng=rng, regions=drawing.drawn, palette=self.palette, width=width
                )
            mirror = {} if row.mirror is None else {"mirror": row.mirror}
            return self.vis_processor(self.drawn_image(row), rng=rng, boxes=boxes, **mirror)

    def check_processor(self, example: str) -> None:
        """Raise `ConfigError`, with an example to write, where no image processor is configured."""
        if self.vis_processor.name == "base":
            key = f"datasets.{self.name}.vis_processor.{'train' if self.is_train else 'eval'}"
            raise ConfigError(f"{key}: missing; write {example}")

    def drawn_image(self, row: Row) -> Image.Image:
        """Return the full-size RGB image, regions drawn; raises `RecordError` with a `reason`."""
        image, width = self._undrawn(row)
        return draw_regions(image, _drawing(row).drawn, palette=self.palette, width=width)

    def _undrawn(self, row: Row) -> tuple[Image.Image, int]:
        """Return the full-size image, its regions checked, and the width of their outlines."""
        drawing = _drawing(row)
        image = self._decoded(drawing.file)
        check_inside(drawing.regions, image.size)
        return image, outline_width(image.size, self.line_width, self._image_size())

    def region_marks(self, row: Row, size: tuple[int, int]) -> tuple[RegionMark, ...]:
        """Return where a page sets the numbers of regions; `size` is that of `drawn_image(row)`."""
        return row_marks(self, row, size)

    def record(self, index: int) -> dict[str, Any]:
        """Return the record as stored; `image` names the image where it is stored with it."""
        record = self.store.read(index)
        stored = self.store.image(index)
        return record if stored is None else {"image": stored.name, **record}

    def source(self, index: int) -> dict[str, Any]:
        """Return the file and line of a row."""
        return self.store.place(index)

    def fingerprint(self) -> dict[str, Any]:
        """Return what all rows depend on: record content, processors, options; not `inputs`."""
        return {
            "name": self.name,
            "split": self.split,
            "files": self.store.identity(),
            "vis_processor": self.vis_processor.describe(),
            "text_processor": self.text_processor.describe(),
            "options": self._options(),
        }

    def places(self) -> list[str]:
        """Return the folders that rows' own files lie in: those of records and images."""
        roots = [root.root for root in self._image_roots()]
        return [self.store.folder(), *roots]

    def inputs(self, index: int) -> list[Input]:
        """Return the files, or parts of files, that one row is read from, its image apart."""
        return self.store.inputs(index)

    def watch(self, *, with_digests: bool) -> Watch:
        """Return an empty watch on the files that the rows of one work unit are read from."""
        return Watch(self.places(), with_digests=with_digests)

    def names_only(self) -> RecordDataset:
        """Return a copy that names images without checking them: plans must not depend on files."""
        twin = copy.copy(self)
        if hasattr(twin, "images"):
            twin.images = ImageRoot(twin.images.root, must_exist=False)
        return twin

    def _image_roots(self) -> list[ImageRoot]:
        named = hasattr(self, "images") and self.config.image_root(self.split)
        return [self.images] if named else []

    def collate(
        self,
        rows: Sequence[Row],
        images: Images | None,
        image_index: Sequence[int],
    ) -> dict[str, Any]:
        """Return a batch.

        Args:
            images: (P, 3, S, S) images or (P, T, D) features of the frozen tower; or P images as
                they are shown to a vision-language model.
            image_index: for each row, its image among the P.

        Returns:
            `image` or `vision_features`, neither without images; shown images give `views` (P
            tuples of `(3, H, W)` uint8), `region_words` (P tuples of words by region number) and
            `parts` (see `Row.all_parts`, N of them); `text_input` (N texts: all
            candidates of a row stand together); `image_index` (N,) from text to image (-1:
            none); `rows`; `image_id`, `instance_id`;
            `text_count` (rows,) where rows have candidates; `label` (long), `qa_label`, `r_label`
            (float) where every row has one.
        """
        import torch

        counts = [len(row.all_texts) for row in rows]
        expanded = [p for p, n in zip(image_index, counts, strict=True) for _ in range(n)]
        samples: dict[str, Any] = {
            "text_input": [text for row in rows for text in row.all_texts],
            "image_index": torch.tensor(expanded, dtype=torch.long),
            "image_id": torch.tensor(
                [row.targets.get("image_id", row.index) for row in rows], dtype=torch.long
            ),
            "instance_id": [str(row.fields.get("instance", row.index)) for row in rows],
            "rows": list(rows),
        }
        if isinstance(images, Sequence):
            samples["views"] = [image.views for image in images]
            samples["region_words"] = [image.regions for image in images]
            samples["parts"] = [parts for row in rows for parts in row.all_parts]
        elif images is not None:
            samples["image" if images.ndim == 4 else "vision_features"] = images
        if any(row.texts is not None for row in rows):
            samples["text_count"] = torch.tensor(counts, dtype=torch.long)
        kinds = {"label": torch.long, "qa_label": torch.float32, "r_label": torch.float32}
        for key, dtype in kinds.items():
            if rows and all(key in row.targets for row in rows):
                samples[key] = torch.tensor([row.targets[key] for row in rows], dtype=dtype)
        return samples

    def _options(self) -> dict[str, Any]:
        """Return the options that change rows or images, JSON-able."""
        return self.config.options(self.split)

    def _image_key(self, drawing: Drawing) -> str:
        """Return a hash of all that the tensor, or the reason why there is none, depends on."""
        shapes = [
            (r.color_id, r.polygons, *((r.mask.to_coco(),) if r.mask else ()))
            for r in drawing.drawn
        ]
        boxes = [region.box for region in drawing.regions]
        if self._style is None:
            style = [self.palette, self.line_width, self.vis_processor.describe()]
            self._style = json.dumps(style, sort_keys=True)
        parts: list[Any] = [drawing.file.identity(), boxes, shapes]
        if drawing.crop is not None:
            parts.append({"crop": drawing.crop})
        text = json.dumps(parts) + self._style
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16)
        return digest.hexdigest()

    def _image_size(self) -> int:
        return int(getattr(self.vis_processor, "image_size", 384))

    def _decoded(self, file: ImageFile) -> Image.Image:
        """Decode, or reuse the last image: rows of one image often follow each other."""
        if self._last is None or self._last[0] != file:
            image = decode_image(file, self.config.max_pixels)
            if image.width * image.height > _KEPT_PIXELS:
                self._last = None
                return image
            self._last = (file, image)
        return self._last[1]


def _drawing(row: Row) -> Drawing:
    assert row.drawing is not None, "rows come from RecordDataset.row"
    return row.drawing


class FeatureSource(Protocol):
    """Precomputed features of the frozen tower."""

    def get(self, image_key: str) -> Tensor | None:
        """Return (T, D), or None where they were not computed."""


class TrainingView:
    """Map-style data set for a torch `DataLoader`: item i is `(Row, tensor)` or `RejectedRow`.

    The tensor is None where the data set has no images.

    Randomness is a function of (seed, epoch, i) only, so workers, resume and world size change
    nothing. Call `set_epoch` before the loader is iterated; workers that outlive an epoch
    (`persistent_workers`) would not see it.

    Args:
        seed: of the run.
        feature_cache: gives (T, D) features in place of images; needs deterministic processors.
    """

    def __init__(
        self, dataset: RecordDataset, seed: int, feature_cache: FeatureSource | None = None
    ) -> None:
        self.dataset = dataset
        self.seed = seed
        self.epoch = 0
        self.feature_cache = feature_cache

    def set_epoch(self, epoch: int) -> None:
        """Choose the random stream of an epoch, from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Row, Pixels | None] | RejectedRow:
        rng = row_random(self.seed, self.epoch, index)
        try:
            row = self.dataset.row(index, rng)
            if not self.dataset.has_images:
                return row, None
            if getattr(self.dataset.vis_processor, "swap_sides", False):
                other = mirrored(row) if rng.random() < 0.5 else None
                row = other or dataclasses.replace(row, mirror=False)
            features = self.feature_cache.get(row.image_key) if self.feature_cache else None
            return row, self.dataset.image(row, rng) if features is None else features
        except RecordError as error:
            return RejectedRow(index, error.reason, self.dataset.source(index))

    def collate(self, items: Sequence[tuple[Row, Pixels | None] | RejectedRow]) -> dict[str, Any]:
        """Return the samples of the usable items, and the others under `rejects`.

        Rows that share an image share its tensor where the processor is not random. A batch of
        rejects only has empty `rows`.

        Raises:
            DataError: features for some images of the batch but not for all.
        """
        import torch

        rejects = [item for item in items if isinstance(item, RejectedRow)]
        usable = [item for item in items if not isinstance(item, RejectedRow)]
        if len({getattr(tensor, "ndim", None) for _, tensor in usable}) > 1:
            raise DataError("features of some images are missing from the cache; compute them")
        places: dict[str, int] = {}
        tensors: list[Pixels] = []
        image_index: list[int] = []
        for place, (row, tensor) in enumerate(usable):
            if tensor is None:
                image_index.append(-1)
                continue
            shared = self.dataset.vis_processor.deterministic
            key = row.image_key if shared else str(place)
            if key not in places:
                places[key] = len(tensors)
                tensors.append(tensor)
            image_index.append(places[key])
        stacks = bool(tensors) and isinstance(tensors[0], torch.Tensor)
        images = torch.stack(tensors) if stacks else tensors or None  # type: ignore[arg-type]
        samples = self.dataset.collate([row for row, _ in usable], images, image_index)  # type: ignore[arg-type]
        samples["rejects"] = rejects
        return samples
