"""Sections `datasets.<name>` of a run, in the shape LAVIS users write them; imports no torch."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping
from dataclasses import field
from typing import Any, ClassVar, Literal

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from lavis.common.config.fields import STRICT
from lavis.common.config.renamed import former_names
from lavis.common.errors import ConfigError
from lavis.common.registry import processors

logger = logging.getLogger(__name__)

DEFAULT_MAX_PIXELS = 178_956_970  # where Pillow refuses an image as a decompression bomb

# Keys of a split that LAVIS configs carry and nothing here reads. Nothing is downloaded.
_UNUSED = ("url", "md5")
_RETIRED = {
    "text_only": "it never had an effect",
    "draw_others": "it never had an effect",
    "reorder_regions": "it never had an effect",
    "region_mode": "it is an option of the data set now, not of a split",
    "include_rationale": "it is an option of the data set now, not of a split",
    "multi_class": "the critic has two classes",
    "use_generative": "the critic has two classes",
}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SplitSource:
    """Node `build_info.annotations.<split>`.

    `UNREAD` names fields on which no row depends: what they name is identified by its content.

    Attributes:
        storage: record files, folders or shards; relative ones are joined to `ann_root`.
        region_mapping: JSONL of `{image, region_locations}`, beside or instead of `references`.
        vis_root: image root of this split; else `build_info.<data_type>.storage`.
        is_mc: records carry `choices`; each becomes one text of the same image.
        no_regions: draw no regions and write no numbers.
        no_question: leave question and answer prefix out of a choice's text.
        use_object_tags: write `name [k]` in place of `[k]`.
    """

    storage: str | list[str]
    region_mapping: str | None = None
    vis_root: str | None = None
    is_mc: bool = False
    no_regions: bool = False
    no_question: bool = False
    use_object_tags: bool = False

    UNREAD: ClassVar[frozenset[str]] = frozenset({"storage", "region_mapping", "vis_root"})

    @model_validator(mode="before")
    @classmethod
    def _drop_retired(cls, node: Any) -> Any:
        if not isinstance(node, Mapping):
            return node
        storage = node.get("storage")
        for path in storage if isinstance(storage, list) else [storage]:
            if isinstance(path, (int, float)):
                raise ConfigError(f"storage: {path} is a number; write it in quotes, as '000000'")
        dropped = [f"{key} ({_RETIRED[key]})" for key in node if key in _RETIRED]
        if dropped:
            logger.warning("build_info.annotations: ignored %s", "; ".join(dropped))
        return {k: v for k, v in node.items() if k not in _RETIRED and k not in _UNUSED}

    @property
    def paths(self) -> list[str]:
        """The storage as a list."""
        return [self.storage] if isinstance(self.storage, str) else list(self.storage)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VisualSource:
    """Node `build_info.images` (or `csv`): image root and root of the annotations.

    Attributes:
        storage: folder that image names are relative to.
        ann_root: folder that names of record files are relative to.
    """

    storage: str = ""
    ann_root: str | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BuildInfo:
    """Node `build_info`: annotations by split, and where the images are."""

    annotations: dict[str, SplitSource]
    images: VisualSource | None = None
    csv: VisualSource | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ProcessorPair:
    """Node `vis_processor` or `text_processor`: `{name: ..., options}` for train and eval.

    Attributes:
        train, eval: `name` of a registered processor, and its options (null: identity).
    """

    train: dict[str, Any] | None = None
    eval: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        for side in ("train", "eval"):
            node = getattr(self, side)
            if node is None:
                continue
            name = node.get("name")
            if not isinstance(name, str):
                raise ConfigError(f"{side}.name: missing; one of {', '.join(processors.list())}")
            processors.get(name).from_config(node)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DatasetConfig:
    """Options that every data set's section has.

    All but those in `UNREAD` are part of what rows depend on (`options`): processors describe
    themselves, and files and folders are identified by their content.

    Attributes:
        type: which default YAML the section started from.
        data_type: key of `build_info` that holds the image root.
        max_pixels: larger images are rejected undecoded.
        follow_symlinks: accept links that lead out of the image root.
        cache_dir: where `.gz` / `.zst` records are unpacked (default `~/.cache/lavis/records`).
    """

    type: str = "default"
    data_type: Literal["images", "csv"] = "images"
    build_info: BuildInfo
    vis_processor: ProcessorPair = field(default_factory=ProcessorPair)
    text_processor: ProcessorPair = field(default_factory=ProcessorPair)
    max_pixels: int = DEFAULT_MAX_PIXELS
    follow_symlinks: bool = False
    cache_dir: str | None = None

    UNREAD: ClassVar[frozenset[str]] = frozenset(
        {"type", "data_type", "build_info", "vis_processor", "text_processor", "cache_dir"}
    )

    def options(self, split: str) -> dict[str, Any]:
        """Return every option on which rows or images of a split depend, JSON-able."""
        options = {
            field.name: getattr(node, field.name)
            for node in (self, self.source(split))
            for field in dataclasses.fields(node)
            if field.name not in node.UNREAD
        }
        return former_names(options, "datasets.x")

    def __post_init__(self) -> None:
        faults = []
        if not 0 < self.max_pixels <= DEFAULT_MAX_PIXELS:
            faults.append(
                f"max_pixels is {self.max_pixels}; use 1 to {DEFAULT_MAX_PIXELS}, above which "
                "Pillow refuses an image"
            )
        for split in self.build_info.annotations:
            faults += self._missing_files(split)
        if faults:
            raise ConfigError("\n".join(dict.fromkeys(faults)))

    def check_source(self, name: str, split: str) -> None:
        """Raise `ConfigError` where a split's data are neither here nor can be fetched.

        Not part of the section's own check, so that a run file loads before its data are there.

        Args:
            name: of the data set, for the message.
        """

    def visual(self) -> VisualSource:
        """Return the node that `data_type` names; empty where it is missing."""
        return getattr(self.build_info, self.data_type) or VisualSource()

    def source(self, split: str) -> SplitSource:
        """Return a split's node; raises `ConfigError` for an unknown split."""
        if split not in self.build_info.annotations:
            names = ", ".join(self.build_info.annotations)
            raise ConfigError(f"build_info.annotations: no split '{split}'; there are: {names}")
        return self.build_info.annotations[split]

    def record_paths(self, split: str) -> list[str]:
        """Return the split's files, relative ones joined to `ann_root`."""
        root = os.path.expanduser(self.visual().ann_root or "")
        return [os.path.join(root, os.path.expanduser(p)) for p in self.source(split).paths]

    def image_root(self, split: str) -> str:
        """Return the folder that image names are relative to."""
        return os.path.expanduser(self.source(split).vis_root or self.visual().storage)

    def processor(self, kind: Literal["vis", "text"], split: str) -> dict[str, Any]:
        """Return the processor node of a split (train splits: `train`); identity where unset."""
        pair: ProcessorPair = getattr(self, f"{kind}_processor")
        node = pair.train if is_train_split(split) else pair.eval
        return node or {"name": "base"}

    def _needs_images(self) -> bool:
        return True

    def _missing_files(self, split: str) -> list[str]:
        """Return what is configured but missing, one line each."""
        faults = []
        where = f"build_info.annotations.{split}"
        for path in self.record_paths(split):
            if not any(c in path for c in "*?{[") and not os.path.exists(path):
                faults.append(f"{where}.storage: no such file or folder: {path}")
        mapping = self.source(split).region_mapping
        if mapping and not os.path.isfile(os.path.expanduser(mapping)):
            faults.append(f"{where}.region_mapping: no such file: {mapping}")
        root = self.image_root(split)
        if self._needs_images() and root and not os.path.isdir(root):
            key = (
                f"{where}.vis_root"
                if self.source(split).vis_root
                else f"build_info.{self.data_type}.storage"
            )
            faults.append(f"{key}: no such image folder: {root}")
        return faults


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RegionOptions(DatasetConfig):
    """How regions are looked up, drawn and named; the defaults are the released behaviour.

    Attributes:
        region_source: where a region id is looked up first: `references` of the record or the
            region mapping; the other one fills the gaps.
        region_mode: `boxes`, or `segms` (masks or polygons; a region without is drawn as its box).
        max_regions: only the first so many are drawn; None draws all.
        undrawn_regions: how the text writes the others: their `number`, object `name`, or not at
            all (`drop`).
        palette: `distinct` gives ids over 4 colours of their own, `released` nearly one grey.
        line_width: pixels of the full image, or `auto` for 2 pixels after the resize.
    """

    region_source: Literal["references_first", "mapping_first"] = "references_first"
    region_mode: Literal["boxes", "segms"] = "boxes"
    max_regions: int | None = 5
    undrawn_regions: Literal["number", "name", "drop"] = "number"
    palette: Literal["released", "distinct"] = "released"
    line_width: int | Literal["auto"] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_regions is not None and self.max_regions < 0:
            raise ConfigError(f"max_regions is {self.max_regions}; use 0 or more, null for all")
        if self.line_width != "auto" and self.line_width < 1:
            raise ConfigError(f"line_width is {self.line_width}; use 1 or more, or 'auto'")


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} is {value}; use a probability from 0 to 1")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LckConfig(RegionOptions):
    """Section `datasets.unified_vqa_binary`: critic training and filtering on LCK records.

    Attributes:
        region_prob: in training, probability of the regions in `region` in their order; else all
            of `region_all`, shuffled.
        label_polarity: `corrected` has 1 = accept everywhere (2 or more annotators); `released`
            has 1 = reject for `label` lists.
        include_rationale: put the rationale behind question and answer.
        word_boxes: in training, pass the records' `word_boxes` to the model (its `grounding`): word
            -> boxes as shares of the image; an empty list: nothing there has that name.
    """

    region_prob: float = 0.6
    label_polarity: Literal["corrected", "released"] = "corrected"
    include_rationale: bool = True
    word_boxes: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_probability("region_prob", self.region_prob)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LaionConfig(DatasetConfig):
    """Section `datasets.laion_sample_extracted`: img2dataset folders, or tar shards of them."""

    def _needs_images(self) -> bool:
        return False  # images lie beside their records


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ContrastiveConfig(RegionOptions):
    """Sections `datasets.unified_vqa_chatgpt_contrastive` and `datasets.unified_contrastive`.

    Image-text pairs that train the student, and images with candidate texts that test it.

    Attributes:
        max_regions: None, all are drawn.
        region_prob: in training, probability of the regions in `region`, else of `region_all`;
            both are shuffled.
        shuffle_regions: false keeps their order, so that an image is drawn and its features are
            computed once.
        rationale_prob: in training, probability that the rationale follows the answer.
        image_id: `image` gives records of one image one id, in every file and data set; `row` is
            the row number.
    """

    max_regions: int | None = None
    region_prob: float = 0.5
    shuffle_regions: bool = True
    rationale_prob: float = 0.5
    image_id: Literal["image", "row"] = "image"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_probability("region_prob", self.region_prob)
        _check_probability("rationale_prob", self.rationale_prob)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GenerativeDatasetConfig(RegionOptions):
    """Section `datasets.unified_vqa_chatgpt`: what a student reads, and what it must write.

    Attributes:
        max_regions: None, all are drawn.
        region_prob: in training, probability of the regions in `region`, else of `region_all`;
            both are shuffled.
        split_at: where training cuts a text in two: at a random word of its first half
            (`random`, as released), or behind the question as evaluation does (`question`).
        include_rationale: the rationale follows the answer.
    """

    max_regions: int | None = None
    region_prob: float = 0.5
    split_at: Literal["random", "question"] = "random"
    include_rationale: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_probability("region_prob", self.region_prob)


def is_train_split(split: str) -> bool:
    """Return whether a split is read with the training processors (`train`, `train_synthetic`)."""
    return split.startswith("train")
