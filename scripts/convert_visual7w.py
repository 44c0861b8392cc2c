"""Convert Visual7W's telling questions into four answers a question.

    python scripts/convert_visual7w.py dataset_v7w_telling.json --split test \
        --output $UNIFIED_INPUT/v7w/unified_v7w_telling_test.jsonl

Images: `visual7w/v7w_*.jpg` below UNIFIED_IMAGE_DIR.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lavis.datasets.unified.choices import Visual7wConverter
from lavis.datasets.unified.convert import run_converter

if __name__ == "__main__":
    sys.exit(run_converter(Visual7wConverter, __doc__ or ""))
