"""Convert VisualCOMET into true inferences among candidates, a record for each relation.

    python scripts/convert_visualcomet.py val_annots.json \
        --image-dir $UNIFIED_IMAGE_DIR/vcr1images \
        --output $UNIFIED_INPUT/visualcomet/unified_visualcomet_val_ranking.jsonl

Without `--candidates` they are drawn by seed, a choice of ours: figures compare with each other,
not with the publication's. Images are VCR's.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lavis.datasets.unified.convert import run_converter
from lavis.datasets.unified.visualcomet import VisualCometConverter

if __name__ == "__main__":
    sys.exit(run_converter(VisualCometConverter, __doc__ or ""))
