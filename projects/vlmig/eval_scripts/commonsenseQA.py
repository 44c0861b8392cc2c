"""Multiple choice; `--testset` names the benchmark: piqa, siqa, hs, winogrande, arc, obqa, cqa.

    python3 eval_scripts/commonsenseQA.py --model_name meta-llama/Meta-Llama-3-8B \
        --pretrained_model output/llama3/ft_wiki_laion_220_2 --generate_images True --k 10 \
        --testset piqa

The released script's name and flags, for `evaluate.py`, which does the work (README.md, here).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from lavis.common.cli import run_front_end

if __name__ == "__main__":
    sys.exit(run_front_end(__doc__, "evaluate", ["--task", "commonsense", *sys.argv[1:]]))
