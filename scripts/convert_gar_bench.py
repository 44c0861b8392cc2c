"""Convert GAR-Bench-VQA into lettered options about masked regions of an image.

    python scripts/convert_gar_bench.py GAR-Bench-VQA.json \
        --output $UNIFIED_INPUT/gar_bench/unified_gar_bench_vqa.jsonl

Images: `gar_bench/...` below UNIFIED_IMAGE_DIR, where they are looked for; `--image-prefix` names
another folder. Their owners' terms (COCO, Objects365, FSCD-147, RGBD-Mirror) hold.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lavis.datasets.unified.convert import run_converter
from lavis.datasets.unified.gar_bench import GarBenchConverter

if __name__ == "__main__":
    sys.exit(run_converter(GarBenchConverter, __doc__ or ""))
