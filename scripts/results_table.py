"""Print the benchmarks' published figures beside what runs measured, as text or Markdown.

    python scripts/results_table.py zero-shot:vcr_qa=output/zs/vcr_qa vcr_qa=output/vcr_qa \\
        vcr_qar=output/vcr_qar sherlock=output/sherlock --format markdown --paper table3.json

An argument is `[SYSTEM:]BENCHMARK=FOLDER`, the output folder of a run; runs without a system's name
are `measured`. Q -> AR is joined from a system's two VCR runs. `--paper` names a JSON file of
{"BENCHMARK": figure} or {"SYSTEM": {"BENCHMARK": figure}}; figures are not shipped with this
program, so those columns are empty or absent without it. Figures are in percent (Sherlock: -100 to
100) with a 95 % bootstrap interval over records.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from lavis.tasks.comparison.results_table import main

if __name__ == "__main__":
    sys.exit(main())
