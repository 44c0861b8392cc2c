"""Export a trained student: LAVIS's names, or a folder that plain transformers loads.

    python scripts/export_student.py output/student --form hf --output student_hf \\
        --license cc-by-4.0 --critic critic_ft --threshold 0.8

Reads the run's folder (`config.yaml`, `checkpoint_best`), writes weights, configs and a model card.
`--form lavis` writes `model.safetensors` under LAVIS's names: what was trained, `--whole` all.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jinja2

from lavis.common.command import command
from lavis.common.config.fields import CONFIG_ROOT
from lavis.common.storage.atomic import write_text
from lavis.models.zoo import load_run

GENERATIVE = ("blip2_t5", "blip2_opt", "blip2_llm")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
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
    export(parse_args(argv))


def export(args: argparse.Namespace) -> None:
    """Build the run's model with its trained weights and write it."""
    model, tree = load_run(args.run, args.checkpoint)
    args.output.mkdir(parents=True, exist_ok=True)
    if args.form == "hf":
        from lavis.models.blip2.hugging_face import export_student

        export_student(model, args.output)
    else:
        from lavis.common.checkpoint import save_safetensors

        weights = model.full_state_dict() if args.whole else model.trainable_state_dict()
        save_safetensors(args.output / "model.safetensors", weights, {"format": "pt"})
    write_text(args.output / "README.md", card(args, tree))
    print(f"wrote {args.output}")


def card(args: argparse.Namespace, tree: Mapping[str, Any]) -> str:
    """Return the model card."""
    section = tree["model"]
    state = _read_json(args.run / args.checkpoint / "trainer_state.json")
    environment = _read_json(args.run / "environment.json")
    datasets = tree.get("datasets", {})
    texts = [_prompt(node) for node in datasets.values()]
    values = {
        "name": args.name or args.run.resolve().name,
        "form": args.form,
        "whole": args.whole,
        "license": args.license,
        "arch": section["arch"],
        "generative": section["arch"] in GENERATIVE,
        "image_size": section["image_size"],
        "language_model": next((section[k] for k in section if k.endswith("_model")
                                and k in ("t5_model", "opt_model", "llm_model")), None),
        "base": section.get("pretrained") if section.get("load_pretrained", True) else None,
        "data": args.data if args.data is not None else _files(datasets),
        "data_license": args.data_license,
        "critic": args.critic,
        "threshold": args.threshold,
        "iterations": state.get("iteration"),
        "validation": (state.get("best") or {}).get("metric"),
        "commit": environment.get("commit"),
        "metrics": [dict(zip(("name", "value"), m.split("=", 1), strict=True))
                    for m in args.metric],
        "prompt": texts[0] if texts else "",
    }  # fmt: skip
    loader = jinja2.FileSystemLoader(CONFIG_ROOT / "cards")
    options: dict[str, Any] = {"undefined": jinja2.StrictUndefined, "keep_trailing_newline": True}
    return (
        jinja2.Environment(loader=loader, **options).get_template("student.md.jinja").render(values)
    )


def _files(datasets: Mapping[str, Any]) -> list[str]:
    """Return the names of the training files."""
    names = []
    for node in datasets.values():
        storage = (
            node.get("build_info", {}).get("annotations", {}).get("train", {}).get("storage", [])
        )
        storage = [storage] if isinstance(storage, str) else storage
        names += [f"`{Path(path).name}`" for path in storage]
    return names


def _prompt(node: Mapping[str, Any]) -> str:
    return ((node.get("text_processor") or {}).get("eval") or {}).get("prompt") or ""


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


if __name__ == "__main__":
    sys.exit(main())
