"""Fill the image store ahead of a run: every image of a list of texts, once.

    python scripts/generate_images.py prompts.txt --generator openmoji --num-images 4 \
        --import-modules projects.quickstart
    torchrun --nproc_per_node=4 scripts/generate_images.py questions.jsonl \
        --options model=stabilityai/sdxl-turbo batch_size=16 --scorer clip
    python scripts/generate_images.py prompts.txt --scorer clip --dry-run
    torchrun --nproc_per_node=4 scripts/generate_images.py \
        --cfg-path lavis/projects/vlmig/eval/piqa.yaml \
        --options datasets.benchmark.data_dir=data/piqa
    torchrun --nproc_per_node=4 scripts/generate_images.py \
        --cfg-path lavis/projects/vlmig/train/ft_wiki_laion_220.yaml --train-epochs 2

Texts: a `.txt` with one on a line, or a `.jsonl` of `{"text": ...}` (the prompt rule makes K
prompts of it) or `{"prompts": [...]}` (drawn as they are). With a run file instead: exactly the
images and scores that its evaluation, or its training on texts without images, will ask for, by
the run file's own settings; `--options` are those of `evaluate.py` and `train.py` then. A killed
run goes on where it stopped.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from lavis.tasks.questions.fill_store import main

if __name__ == "__main__":
    sys.exit(main())
