"""Convert SNLI-VE into a choice of contradiction, neutral and entailment a sentence.

    python scripts/convert_snli_ve.py snli_ve_test.jsonl \
        --output $UNIFIED_INPUT/snli_ve/unified_snli_ve_test.jsonl

Images: Flickr30K, `flickr30k-images/...` below UNIFIED_IMAGE_DIR.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lavis.datasets.unified.choices import SnliVeConverter
from lavis.datasets.unified.convert import run_converter

if __name__ == "__main__":
    sys.exit(run_converter(SnliVeConverter, __doc__ or ""))
