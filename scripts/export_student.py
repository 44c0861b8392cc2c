"""Export a trained student: LAVIS's names, or a folder that plain transformers loads.

    python scripts/export_student.py output/student --form hf --output student_hf \\
        --license cc-by-4.0 --critic critic_ft --threshold 0.8

Reads the run's folder (`config.yaml`, `checkpoint_best`), writes weights, configs and a model card.
`--form lavis` writes `model.safetensors` under LAVIS's names: what was trained, `--whole` all. The
adapters of a vision-language model (`vlm_student`, `vlm_critic`) are merged into its own weights.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lavis.common.command import command
from lavis.models.student_export import StudentFacts, export_run


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="output folder of the training run")
    parser.add_argument("--output", type=Path, required=True, help="folder that is written")
    parser.add_argument("--form", choices=["hf", "lavis"], default="hf")
    parser.add_argument(
        "--checkpoint", default="checkpoint_best", help="folder inside RUN, or a file"
    )
    parser.add_argument("--whole", action="store_true", help="lavis: frozen weights as well")
    parser.add_argument("--name", help="title of the card (default: the run folder's name)")
    parser.add_argument("--license", default="other", help="of the exported weights")
    parser.add_argument(
        "--data", nargs="*", help="what it was trained on (default: the run's files)"
    )
    parser.add_argument("--data-license", help="of the training data")
    parser.add_argument("--critic", help="name and version of the critic that filtered the data")
    parser.add_argument("--threshold", type=float, help="the critic's score that the data reached")
    parser.add_argument(
        "--metric", nargs="*", default=[], metavar="NAME=VALUE", help="for the card"
    )
    return parser.parse_args(argv)


@command
def main(argv: list[str] | None = None) -> None:
    """Export the student that the flags name."""
    args = parse_args(argv)
    facts = StudentFacts(
        name=args.name or args.run.resolve().name,
        license=args.license,
        data=args.data,
        data_license=args.data_license,
        critic=args.critic,
        threshold=args.threshold,
        metrics=dict(metric.split("=", 1) for metric in args.metric),
    )
    export_run(
        args.run,
        args.output,
        facts,
        form=args.form,
        checkpoint=args.checkpoint,
        whole=args.whole,
    )
    print(f"wrote {args.output}")


if __name__ == "__main__":
    sys.exit(main())
