"""Print published figures beside what runs measured, as text or Markdown, and compare the runs.

    python scripts/results_table.py student:vcr_qa=output/student/vcr_qa \\
        vlm:vcr_qa=output/vlm/vcr_qa vlm:vcr_qar=output/vlm/vcr_qar --format markdown

An argument is `[SYSTEM:]BENCHMARK=FOLDER`, the output folder of a run; runs without a system's name
are `measured`. Q->AR is joined from a system's two VCR runs. The rows of the paper's main table
(zero-shot) come first; `--paper` names a JSON file {"SYSTEM": {"BENCHMARK": figure}} of more.
Figures are in percent (Sherlock: -100 to 100) with a 95 % bootstrap interval over records. Any
two measured systems are compared on the records that both scored: difference, interval, sign test.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from lavis.tasks.comparison.results_table import main

if __name__ == "__main__":
    sys.exit(main())
