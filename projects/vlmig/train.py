"""Train the fusion block by the released flags, from this folder.

    accelerate launch train.py --run_name test --dataset_name cropped_vg \
        --model_name_or_path meta-llama/Meta-Llama-3-8B --output_dir output/llama3
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lavis.common.cli import run_front_end

if __name__ == "__main__":
    sys.exit(run_front_end(__doc__, "train"))
