"""Combine and compare the scores that several critics gave to one corpus.

    python scripts/combine_scores.py output/blip2 qwen=output/vlm --by minimum \\
        --keep-above 0.5 0.7 --output output/both

Arguments are output folders of `task: multimodal_classification`, or their `result/*.jsonl`; two
files of other records are refused. `--by logistic` learns from rows with a label. The output is
that of a filtering run (score files, kept corpora, rejects, report), with `critics.json` and
`critics.html`: rank correlations, what one critic keeps and another drops, and rows to look at.

Exit status: 0 done, 2 a file or a flag cannot be used.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from lavis.tasks.combination.command import main

if __name__ == "__main__":
    sys.exit(main())
