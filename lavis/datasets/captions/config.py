"""Sections of the data sets that late fusion is trained on; imports no torch."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import ClassVar, Literal

from pydantic import PositiveInt
from pydantic.dataclasses import dataclass

from lavis.common.config.fields import STRICT
from lavis.common.errors import ConfigError
from lavis.datasets.config import DatasetConfig


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CaptionDatasetConfig(DatasetConfig):
    """Options of every data set of captions.

    Attributes:
        max_elements: use only so many rows (null: all).
        shuffle_data: take them after a shuffle with seed 42, as released, not the first ones.
        with_images: false leaves images out, for training on the same texts alone.
    """

    max_elements: int | None = None
    shuffle_data: bool = False
    with_images: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_elements is not None and self.max_elements < 1:
            raise ConfigError(f"max_elements is {self.max_elements}; use 1 or more, null for all")

    def _needs_images(self) -> bool:
        return self.with_images


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CaptionedImagesConfig(CaptionDatasetConfig):
    """Section `datasets.captioned_images`: rows of image, optional box, text, in any form.

    Attributes:
        image_key: field that names a file under the image root, or holds the image's bytes.
            Unused where images lie beside their records (tar shards, img2dataset folders).
        text_key: field of the caption; `txt` is that of a tar member `<key>.txt`.
        box_key: field of four numbers, or four fields; a row without them shows the whole image.
        box_format: `xywh` is corner, width and height; `xyxy` two corners; in pixels.
    """

    image_key: str = "image"
    text_key: str = "text"
    box_key: str | list[str] = "box"
    box_format: Literal["xywh", "xyxy"] = "xyxy"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.box_key, list) and len(self.box_key) != 4:
            raise ConfigError(
                f"box_key has {len(self.box_key)} fields; write one, or four such as "
                "[x, y, width, height]"
            )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PublishedConfig(CaptionDatasetConfig):
    """A published data set: local files, or the Hugging Face hub.

    `build_info.annotations.<split>.storage` may name the files, relative to `data_dir`; empty, they
    are searched for there.

    Attributes:
        data_dir: folder of the published files, of Parquet files, or of `save_to_disk`, or the one
            file; null fetches from the hub.
    """

    LOCAL_FILES: ClassVar[str] = ""  # what `data_dir` may hold, for messages
    UNREAD: ClassVar[frozenset[str]] = CaptionDatasetConfig.UNREAD | {"data_dir"}

    data_dir: str | None = None

    def check_source(self, name: str, split: str) -> None:
        """Raise `ConfigError` where there are neither files nor a way to fetch them."""
        if self.data_dir is not None:
            if not os.path.exists(os.path.expanduser(self.data_dir)):
                raise ConfigError(
                    f"datasets.{name}.data_dir: no such file or folder: {self.data_dir}; it should "
                    f"hold {self.LOCAL_FILES}"
                )
        elif not self.source(split).paths and find_spec("datasets") is None:
            raise ConfigError(
                f"datasets.{name}.data_dir: missing; give the folder that holds "
                f"{self.LOCAL_FILES} (--options datasets.{name}.data_dir=...), or pip install "
                "datasets to fetch it"
            )

    def record_paths(self, split: str) -> list[str]:
        """Return the configured files, relative ones joined to `data_dir`."""
        root = os.path.expanduser(self.data_dir or "")
        return [os.path.join(root, os.path.expanduser(p)) for p in self.source(split).paths if p]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CroppedVgConfig(PublishedConfig):
    """Section `datasets.cropped_vg`: a row for each region description of Visual Genome.

    Images come from the table where it holds them, else `<image_id>.jpg` (or `.png`) from
    `build_info.images.storage`, `data_dir`, or their folders `VG_100K`, `VG_100K_2`, `images`.
    """

    LOCAL_FILES: ClassVar[str] = (
        "region_descriptions.json (or .json.zip, .json.gz) and the images, VG_100K and VG_100K_2"
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LaionCaptionsConfig(PublishedConfig):
    """Section `datasets.laion_220`: GPT-4V captions of images of COCO.

    Images lie under `build_info.images.storage` by what follows the host in their address, such
    as `train2017/000000000009.jpg`.

    Attributes:
        short: use `short_caption` in place of `caption`.
    """

    LOCAL_FILES: ClassVar[str] = "the Parquet file (or JSON lines: url, caption, short_caption)"

    short: bool = False


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WikiConfig(PublishedConfig):
    """Section `datasets.wiki`: wikitext-103 in blocks of tokens, each with an image to be drawn.

    Attributes:
        wiki_num: 103, or 2 for the small corpus, where it is fetched.
        tokenizer: Hugging Face id or folder; that of the language model.
        block_size: tokens of a row. 447 leaves room for 49 image tokens in BERT's 512.
        text_key: column of the lines, in tables and JSON lines.
    """

    LOCAL_FILES: ClassVar[str] = "wiki.train.raw, or the Parquet files of wikitext-103-raw-v1"
    UNREAD: ClassVar[frozenset[str]] = PublishedConfig.UNREAD | {"tokenizer"}  # by its state

    wiki_num: Literal[2, 103] = 103
    tokenizer: str
    block_size: PositiveInt = 447
    text_key: str = "text"
