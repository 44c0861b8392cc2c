"""Outputs of the frozen vision tower, computed once for each distinct image and kept on disk.

Shapes: T tokens of width D. Features are float32, so training on them equals training on images.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lavis.common.config.run import RunConfig
from lavis.common.dist import World
from lavis.common.errors import ConfigError, RecordError
from lavis.common.logger import Progress
from lavis.common.storage.cache import Cache, make_key
from lavis.common.storage.content import file_state
from lavis.datasets.base import FeatureSource, RecordDataset, TrainingView
from lavis.datasets.rows import Pixels, RejectedRow, Row
from lavis.runners.contracts import RunnerModel
from lavis.runners.loader import autocast, make_loader

logger = logging.getLogger(__name__)

VERSION = 1
FIXED_ROWS = 1000  # smaller data sets are scanned at every epoch
Images = dict[str, int]  # image key -> a row that shows it


def cache_root(folder: Path) -> Path:
    """Return where outputs of frozen parts are kept: `LAVIS_CACHE`, else in the run's folder."""
    return Path(os.environ.get("LAVIS_CACHE") or folder / "cache")


class VisionFeatures:
    """VisionFeatures by image key; picklable, so that loader processes read them.

    Args:
        cache: where they are kept.
        tower: identity of the tower and of what it computes in.
    """

    def __init__(self, cache: Cache, tower: str) -> None:
        self._cache, self._tower = cache, tower

    def key(self, image_key: str) -> str:
        """Return the cache's key of an image's features."""
        return make_key("vision_features", VERSION, tower=self._tower, picture=image_key)

    def get(self, image_key: str) -> Tensor | None:
        """Return (T, D), or None where they were not computed."""
        array = self._cache.get_array(self.key(image_key))
        return None if array is None else torch.from_numpy(array)

    def has(self, image_key: str) -> bool:
        """Return whether they were computed."""
        return self.key(image_key) in self._cache

    def put(self, image_key: str, features: Tensor) -> None:
        """Keep (T, D)."""
        self._cache.put_array(self.key(image_key), features.float().cpu().numpy())


class FeatureBuilder:
    """Fills a `VisionFeatures` for data sets; every rank encodes its share, once per image ever.

    Args:
        dtype: autocast type in which the model is called, part of the features' identity.

    Raises:
        ConfigError: the tower is trained, so its outputs change.
    """

    def __init__(
        self,
        *,
        model: RunnerModel,
        world: World,
        run: RunConfig,
        folder: Path,
        dtype: torch.dtype | None,
    ) -> None:
        if not getattr(model, "vision_is_frozen", False):
            raise ConfigError(
                "run.cache_features: the vision tower is trained here, so its outputs change; set "
                "model.freeze_vit=true or run.cache_features=false"
            )
        self._model, self._world, self._run, self._dtype = model, world, run, dtype
        tower = f"{model.frozen_fingerprint()} {world.device.type} {dtype}"
        self.features = VisionFeatures(Cache(cache_root(folder)), tower)
        self._fixed: dict[int, RecordDataset] = {}

    def for_training(self, dataset: RecordDataset, epoch: int) -> None:
        """Make sure that every image of a training epoch has features.

        Images change with the epoch where a data set draws other regions each time.

        Raises:
            ConfigError: the image processor is random.
        """
        processor = getattr(dataset, "vis_processor", None)
        if not getattr(processor, "deterministic", True):
            raise ConfigError(
                f"datasets.{dataset.name}.vis_processor.train: random images cannot be encoded "
                "once; use a processor without randomness such as blip_image_eval, or "
                "run.cache_features=false"
            )
        if id(dataset) in self._fixed:
            return
        seed = self._run.seed
        keys = TrainingView(dataset, seed, _NoImages())
        images = _images(keys, epoch)
        view = TrainingView(dataset, seed)
        self._encode(view, epoch, images, f"features of {dataset.name}")
        if len(dataset) >= FIXED_ROWS and images == _images(keys, epoch + 1):
            self._fixed[id(dataset)] = dataset

    def for_evaluation(self, dataset: RecordDataset) -> FeatureDataset:
        """Return the data set with features in place of images."""
        name = f"features of {dataset.name} {dataset.split}"
        images = _images(_PlainView(dataset, _NoImages()), 0)
        self._encode(_PlainView(dataset), 0, images, name)
        return FeatureDataset(dataset, self.features)

    def _encode(
        self, view: TrainingView | _PlainView, epoch: int, images: Images, what: str
    ) -> None:
        world = self._world
        mine = list(images.items())[world.rank :: world.size]
        missing = [(key, row) for key, row in mine if not self.features.has(key)]
        progress = Progress(
            len(mine), what, unit="images", done=len(mine) - len(missing), shown=world.is_main
        )
        training = self._model.training
        self._model.eval()
        size = self._run.batch_size_eval
        chunks = [missing[i : i + size] for i in range(0, len(missing), size)]
        loader = make_loader(
            _Chunks(view, epoch), chunks, num_workers=self._run.num_workers, device=world.device
        )
        for number, (keys, pixels) in enumerate(loader):
            if keys:
                self._encode_chunk(keys, pixels)
            progress.add(len(chunks[number]))
            world.beat(f"{what}: {progress.done} of {progress.total}")
        if missing:
            progress.close()
        self._model.train(training)
        world.barrier(what)

    def _encode_chunk(self, keys: Sequence[str], images: Tensor) -> None:
        device = self._world.device
        with torch.no_grad(), autocast(device, self._dtype):
            encoded = self._model.encode_frozen(images.to(device, non_blocking=True))
        for key, features in zip(keys, encoded.float().cpu(), strict=True):
            self.features.put(key, features)


class FeatureDataset:
    """A data set whose images are features where these exist."""

    reads_images = False

    def __init__(self, dataset: RecordDataset, features: VisionFeatures) -> None:
        self._dataset, self._features = dataset, features

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # also while unpickling, before there is a data set to ask
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def __len__(self) -> int:
        return len(self._dataset)

    def image(self, row: Row, rng: random.Random | None = None) -> Pixels:
        """Return (T, D) features, or the data set's own value for an image without any."""
        features = self._features.get(row.image_key)
        return self._dataset.image(row, rng) if features is None else features


class _PlainView:
    """Rows without training's randomness, with the interface of `TrainingView`."""

    def __init__(self, dataset: RecordDataset, feature_cache: FeatureSource | None = None) -> None:
        self.dataset, self.feature_cache = dataset, feature_cache

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: every epoch is the same."""

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Row, Pixels | None] | RejectedRow:
        try:
            row = self.dataset.row(index)
            if self.feature_cache is not None:
                return row, self.feature_cache.get(row.image_key)
            return row, self.dataset.image(row)
        except RecordError as error:
            return RejectedRow(index, error.reason, {})


class _Chunks(Dataset[Any]):
    """Item [(key, row), ...] is the keys and images (P, 3, S, S) that can be read."""

    def __init__(self, view: TrainingView | _PlainView, epoch: int) -> None:
        self._view, self._epoch = view, epoch

    def __getitem__(self, chunk: list[tuple[str, int]]) -> tuple[list[str], Tensor | None]:
        self._view.set_epoch(self._epoch)
        keys, images = [], []
        for key, index in chunk:
            item = self._view[index]
            if isinstance(item, RejectedRow):
                continue
            if not isinstance(item[1], Tensor) or item[1].ndim != 3:
                continue  # what a data set gives as features is not encoded
            if item[0].image_key == key and _is_still(item[0]):
                keys.append(key)
                images.append(item[1])
        return keys, torch.stack(images) if images else None


def _is_still(row: Row) -> bool:
    """Return whether a row's image is the file that its key was made of, now that it is read."""
    file = row.drawing.file if row.drawing is not None else None
    if file is None or file.offset is not None:  # parts of record files stay what they are
        return True
    try:
        return tuple(file_state(file.path))[1:] == (file.mtime_ns, file.ctime_ns)
    except OSError:
        return False


class _NoImages:
    """Stands in for features while only the keys of rows are read."""

    def get(self, image_key: str) -> Tensor:
        return torch.zeros(1, 1)


def _images(view: TrainingView | _PlainView, epoch: int) -> Images:
    """Return the distinct images of an epoch, each with the first row that shows it."""
    view.set_epoch(epoch)
    images: Images = {}
    for index in range(len(view)):
        item = view[index]
        if not isinstance(item, RejectedRow):
            images.setdefault(item[0].image_key, index)
    return images
