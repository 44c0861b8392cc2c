"""Compare this code with numbers measured on the published LSKD implementation.

    python scripts/check_golden.py tests/fixtures/lskd

One line a comparison: name, largest absolute difference, tolerance, pass or FAIL; the exit status
is 1 where any failed. Sizes and names come from the folder's files. Pixels, text and ids must be
equal; hidden states, logits and gradients agree to 1e-4, probabilities and losses to 1e-5.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from golden.checks import Check, read_json
from golden.critic import critic_checks, resized_checks
from golden.filtering import filter_checks
from golden.inputs import drawing_checks, image_checks, schedule_checks, text_checks
from golden.stage1 import stage1_checks

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


def main() -> int:
    """Run every comparison the folder holds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="a set in the format of tests/fixtures/lskd")
    folder: Path = parser.parse_args().folder
    if not (folder / "config.json").is_file():
        sys.stderr.write(f"error: {folder}/config.json: no such file; give a folder of a set\n")
        return 2
    config = read_json(folder / "config.json")
    checks: list[Check] = []
    for part, run in PARTS.items():
        if not (folder / part).is_dir():
            continue
        for check in run(folder, config):
            checks.append(check)
            state = "pass" if check.passed else "FAIL"
            print(f"{check.name:60} {check.difference:10.3g} {check.tolerance:8.0e}  {state}")
    failed = sum(not check.passed for check in checks)
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed or not checks else 0


if __name__ == "__main__":
    sys.exit(main())
