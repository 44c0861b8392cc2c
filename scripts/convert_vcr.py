"""Convert VCR into four answers (`--task qa`) or four rationales (`--task qar`) a question.

    python scripts/convert_vcr.py val.jsonl --image-dir $UNIFIED_IMAGE_DIR/vcr1images --task qa \
        --output $UNIFIED_INPUT/vcr/unified_vcr_qa_val.jsonl

Get annotations and images under the agreement of VCR.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lavis.datasets.unified.convert import run_converter
from lavis.datasets.unified.vcr import VcrConverter

if __name__ == "__main__":
    sys.exit(run_converter(VcrConverter, __doc__ or ""))
