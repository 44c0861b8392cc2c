"""Evaluate, score or filter with the model of a run file; plain python, torchrun or accelerate."""

import sys

from lavis.common.cli import run_front_end

if __name__ == "__main__":
    sys.exit(run_front_end(__doc__, "evaluate"))
