"""Compare this code with numbers measured on the published LSKD and vLMIG implementations.

    python scripts/check_golden.py tests/fixtures/lskd
    python scripts/check_golden.py tests/fixtures/vlmig

One line a comparison: name, largest absolute difference, tolerance, pass or FAIL; the exit status
is 1 where any failed. An error fails the rest of its part in one line, and the next part goes on.
Sizes and names come from the folder's files. Pixels, text, ids and tokens must be equal. LSKD:
hidden states, logits and gradients agree to 1e-4, probabilities and losses to 1e-5. vLMIG: hidden
states and logits to 5e-4, losses to 1e-4, probabilities to 1e-5; answers and accuracies must be
equal.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from golden.checks import Check, contained, read_json
from golden.clip import clip_checks
from golden.critic import critic_checks, resized_checks
from golden.filtering import filter_checks
from golden.inputs import drawing_checks, image_checks, schedule_checks, text_checks
from golden.questions import question_checks
from golden.stage1 import stage1_checks
from golden.vlmig import families, family_checks
from lavis.common.command import command
from lavis.common.errors import DataError

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


@command
def main() -> int:
    """Print every comparison."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="a set in the format of tests/fixtures")
    folder: Path = parser.parse_args().folder
    signs = ("config.json", "*/golden.json", "eval/model.safetensors")
    if not any(any(folder.glob(sign)) for sign in signs):
        raise DataError(f"{folder} holds none of {', '.join(signs)}; give the folder of a set")
    checks: list[Check] = []
    for check in comparisons(folder):
        checks.append(check)
        state = "pass" if check.passed else "FAIL"
        print(f"{check.name:60} {check.difference:10.3g} {check.tolerance:8.0e}  {state}")
    failed = sum(not check.passed for check in checks)
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed or not checks else 0


if __name__ == "__main__":
    sys.exit(main())
