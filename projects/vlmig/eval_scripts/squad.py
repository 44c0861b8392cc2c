"""SQuAD v2, answers written by the model; Llama-3-8B where no model is named.

    python3 eval_scripts/squad.py --model_name meta-llama/Meta-Llama-3-8B \
        --pretrained_model output/llama3/ft_wiki_laion_220_2 --generate_images True --k 5

The released script's name and flags, for `evaluate.py`, which does the work (README.md, here).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from lavis.common.cli import run_front_end

DEFAULTS = ["--task", "squad", "--model_name", "meta-llama/Meta-Llama-3-8B"]

if __name__ == "__main__":
    sys.exit(run_front_end(__doc__, "evaluate", [*DEFAULTS, *sys.argv[1:]]))
