"""Convert Sherlock's comparison set into candidate inferences of a region, two ratings each.

    python scripts/convert_sherlock.py sherlock_val_with_split_idxs_v1_1.json \
        val_comparison/val_comparison_answer_key.json \
        --output $UNIFIED_INPUT/sherlock/unified_sherlock_val_comparison.jsonl

Boxes are in pixels of the annotation's own image size; they are scaled to the files' sizes, here
where `--image-root` (default UNIFIED_IMAGE_DIR) holds `vcr1images/...` and `VG_100K*/...`, else
where the records are read. Get the data under the agreements of Sherlock, VCR and Visual Genome.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lavis.datasets.unified.convert import run_converter
from lavis.datasets.unified.sherlock import SherlockConverter

if __name__ == "__main__":
    sys.exit(run_converter(SherlockConverter, __doc__ or ""))
