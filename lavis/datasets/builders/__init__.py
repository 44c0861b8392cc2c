"""From a checked config section to the data set of one split."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lavis.common.registry import datasets

if TYPE_CHECKING:
    from lavis.datasets.base import RecordDataset
    from lavis.datasets.config import DatasetConfig


def build_dataset(name: str, config: DatasetConfig, split: str) -> RecordDataset:
    """Return the split of a registered data set.

    Raises:
        ConfigError: an unknown name or split.
        DataError: record files that cannot be read, or hold no rows.
    """
    return datasets.get(name)(config, split, name=name)
