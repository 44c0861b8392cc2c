"""BoolQ, yes or no; gpt2 and no images where no flags are given.

    python3 eval_scripts/boolq.py

The released script's name and flags, for `evaluate.py`, which does the work (README.md, here).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from lavis.common.cli import run_front_end

if __name__ == "__main__":
    sys.exit(run_front_end(__doc__, "evaluate", ["--task", "boolq", *sys.argv[1:]]))
