"""Train the model of a run file; works under plain python, torchrun and accelerate launch."""

import sys

from lavis.common.cli import run_front_end

if __name__ == "__main__":
    sys.exit(run_front_end(__doc__, "train"))
