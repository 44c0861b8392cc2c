"""Where images and their regions come from; imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeFloat, PositiveInt
from pydantic.dataclasses import dataclass

from lavis.common.config.fields import STRICT, ExistingPath

RegionFormat = Literal["auto", "jsonl", "vcr", "vg", "coco"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScenesConfig:
    """Section `images` of a verbalization run.

    Without `regions`, every image of `root` is taken, without regions.

    Attributes:
        format: of `regions`; `auto` looks into the file.
        max_regions: most regions of an image (null: all).
        max_pixels: an image with more is set aside unread.
        follow_symlinks: accept links that lead out of `root`.
    """

    root: ExistingPath  # folder that image names are relative to
    # A file, or a folder of VCR's metadata. `jsonl`: {"image", "boxes", "names"}, a region mapping
    # or LCK records; `vcr`: annotations or a folder of metadata; `vg`: objects.json,
    # attributes.json or region_descriptions.json; `coco`: instances json.
    regions: ExistingPath | None = None
    format: RegionFormat = "auto"
    box_format: Literal["xyxy", "xywh"] = "xyxy"  # of `boxes` in lines of one's own
    max_regions: PositiveInt | None = None
    order: Literal["given", "area"] = "given"  # which come first; area: the largest
    min_edge: NonNegativeFloat = 1.0  # pixels; thinner boxes are set aside
    limit: PositiveInt | None = None  # images
    check: Literal["header", "decode"] = "header"  # decode reads every pixel before any stage
    max_pixels: PositiveInt = 100_000_000
    follow_symlinks: bool = False
