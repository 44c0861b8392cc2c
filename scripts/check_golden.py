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
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from lavis.common.command import command
from lavis.common.errors import DataError


@command
def main() -> int:
    """Print every comparison."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="a set in the format of tests/fixtures")
    folder: Path = parser.parse_args().folder
    signs = ("config.json", "*/golden.json", "eval/model.safetensors")
    if not any(any(folder.glob(sign)) for sign in signs):
        raise DataError(f"{folder} holds none of {', '.join(signs)}; give the folder of a set")
    from projects.checks.golden.comparisons import (
        comparisons,  # after the flags: --help loads no torch
    )

    checks = []
    for check in comparisons(folder):
        checks.append(check)
        state = "pass" if check.passed else "FAIL"
        print(f"{check.name:60} {check.difference:10.3g} {check.tolerance:8.0e}  {state}")
    failed = sum(not check.passed for check in checks)
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed or not checks else 0


if __name__ == "__main__":
    sys.exit(main())
