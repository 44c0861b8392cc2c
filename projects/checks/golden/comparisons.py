"""Every comparison that the folder of a set holds, part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from projects.checks.golden.checks import Check, contained, read_json
from projects.checks.golden.clip import clip_checks
from projects.checks.golden.critic import critic_checks, resized_checks
from projects.checks.golden.filtering import filter_checks
from projects.checks.golden.inputs import drawing_checks, image_checks, schedule_checks, text_checks
from projects.checks.golden.questions import question_checks
from projects.checks.golden.stage1 import stage1_checks
from projects.checks.golden.vlmig import families, family_checks

PARTS: dict[str, Callable[[Path, dict[str, Any]], Iterator[Check]]] = {
    "critic": critic_checks,
    "resized_vit": resized_checks,
    "stage1": stage1_checks,
    "drawing": drawing_checks,
    "text": text_checks,
    "image_processor": image_checks,
    "lr": schedule_checks,
    "filter": filter_checks,
}


def comparisons(folder: Path) -> Iterator[Check]:
    """Run every comparison that the folder of a set holds, whichever format it is in."""
    if (folder / "config.json").is_file():
        yield from contained("config", _lskd_checks(folder))
    for family in families(folder):
        yield from contained(family.name, family_checks(family))
    if (folder / "clip" / "golden.safetensors").is_file():
        yield from contained("clip", clip_checks(folder / "clip"))
    if (folder / "eval" / "model.safetensors").is_file():
        yield from contained("eval", question_checks(folder / "eval"))


def _lskd_checks(folder: Path) -> Iterator[Check]:
    config = read_json(folder / "config.json")
    for part, run in PARTS.items():
        if (folder / part).is_dir():
            yield from contained(part, run(folder, config))
