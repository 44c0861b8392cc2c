"""LaMI's one evaluation script: `--task` names the benchmark.

    python3 eval_scripts/eval.py --task boolq --model_name gpt2

Its name and flags, for `evaluate.py`, which does the work (README.md, here).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from lavis.common.cli import run_front_end

if __name__ == "__main__":
    sys.exit(run_front_end(__doc__, "evaluate"))
