"""ImageNetVC: five subsets of questions about things, five prompts each.

    python3 eval_scripts/imagenetVC.py --model_name meta-llama/Meta-Llama-3-8B \
        --run_name llama3_imagenetvc --pretrained_model output/llama3/ft_wiki_laion_220_2 \
        --generate_images True --k 10

The released script's name and flags, for `evaluate.py`, which does the work (README.md, here).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from lavis.common.cli import run_front_end

DEFAULTS = ["--task", "imagenetvc", "--run_name", "test"]

if __name__ == "__main__":
    sys.exit(run_front_end(__doc__, "evaluate", [*DEFAULTS, *sys.argv[1:]]))
