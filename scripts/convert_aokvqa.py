"""Convert A-OKVQA into four answers a question.

    python scripts/convert_aokvqa.py aokvqa_v1p0_val.json \
        --output $UNIFIED_INPUT/aokvqa/unified_aokvqa_val_mc.jsonl

Images: COCO 2017, `val2017/...` below UNIFIED_IMAGE_DIR; `--image-prefix coco` says
`coco/val2017/...`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lavis.datasets.unified.choices import AokvqaConverter
from lavis.datasets.unified.convert import run_converter

if __name__ == "__main__":
    sys.exit(run_converter(AokvqaConverter, __doc__ or ""))
