"""Export of a trained student: LAVIS's names, or plain transformers' classes, and a model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import jinja2

from lavis.common.config.fields import CONFIG_ROOT
from lavis.common.storage.atomic import write_text
from lavis.models.zoo import load_run

GENERATIVE = ("blip2_t5", "blip2_opt", "blip2_llm")
VISION_LANGUAGE = ("vlm_student", "vlm_critic")


@dataclass(frozen=True, kw_only=True)
class StudentFacts:
    """Facts for a student's card beside those in its run's folder.

    Attributes:
        name: its title.
        license: of the exported weights.
        data: what it was trained on; None takes the names of the run's files.
        data_license: of the training data.
        critic: name and version of the critic that filtered the data.
        threshold: the critic's score that the data reached.
        metrics: name -> figure.
    """

    name: str
    license: str = "other"
    data: list[str] | None = None
    data_license: str | None = None
    critic: str | None = None
    threshold: float | None = None
    metrics: dict[str, str] = field(default_factory=dict)


def export_run(
    run: Path,
    output: Path,
    facts: StudentFacts,
    *,
    form: Literal["hf", "lavis"] = "hf",
    checkpoint: str = "checkpoint_best",
    whole: bool = False,
) -> None:
    """Write the weights of a training run, their configs and a card.

    Args:
        run: `run.output_dir` of the training.
        output: folder that is written.
        form: transformers' classes, or one file of weights under LAVIS's names.
        checkpoint: folder inside `run`, or a file.
        whole: of `lavis`, frozen weights as well.

    Example:
        >>> export_run(Path("output/student"), Path("student_hf"), StudentFacts(name="student"))

    Raises:
        ConfigError: `run` is no training run's folder, or has no such checkpoint.
    """
    model, tree = load_run(run, checkpoint, without=["quantization"])
    output.mkdir(parents=True, exist_ok=True)
    if form == "hf" and tree["model"]["arch"] in VISION_LANGUAGE:
        from lavis.models.vlm.export import export_vlm

        export_vlm(model, output)
    elif form == "hf":
        from lavis.models.blip2.hugging_face import export_student

        export_student(model, output)
    else:
        from lavis.common.checkpoint import save_safetensors

        weights = model.full_state_dict() if whole else model.trainable_state_dict()
        save_safetensors(output / "model.safetensors", weights, {"format": "pt"})
    state = _read_json(run / checkpoint / "trainer_state.json")
    environment = _read_json(run / "environment.json")
    text = card(facts, tree, state, environment, {"form": form, "whole": whole})
    write_text(output / "README.md", text)


def card(
    facts: StudentFacts,
    tree: Mapping[str, Any],
    state: Mapping[str, Any],
    environment: Mapping[str, Any],
    form: Mapping[str, Any],
) -> str:
    """Return the model card.

    Args:
        tree: the run's config.
        state: of its trainer.
        environment: commit and versions.
        form: `form` and `whole` of `export_run`.
    """
    section = tree["model"]
    datasets = tree.get("datasets", {})
    texts = [_prompt(node) for node in datasets.values()]
    values = {
        **asdict(facts),
        **form,
        "arch": section["arch"],
        "generative": section["arch"] in GENERATIVE,
        "image_size": section.get("image_size"),
        "vlm": section.get("name"),
        "shows": _shows(datasets),
        "language_model": next((section[k] for k in section if k.endswith("_model")
                                and k in ("t5_model", "opt_model", "llm_model")), None),
        "base": section.get("pretrained") if section.get("load_pretrained", True) else None,
        "data": facts.data if facts.data is not None else _files(datasets),
        "iterations": state.get("iteration"),
        "validation": (state.get("best") or {}).get("metric"),
        "commit": environment.get("commit"),
        "metrics": [{"name": name, "value": value} for name, value in facts.metrics.items()],
        "prompt": texts[0] if texts else "",
    }  # fmt: skip
    loader = jinja2.FileSystemLoader(CONFIG_ROOT / "cards")
    options: dict[str, Any] = {"undefined": jinja2.StrictUndefined, "keep_trailing_newline": True}
    file = "vlm_student.md.jinja" if section["arch"] in VISION_LANGUAGE else "student.md.jinja"
    return jinja2.Environment(loader=loader, **options).get_template(file).render(values)


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


def _shows(datasets: Mapping[str, Any]) -> str:
    """Return how `vlm_image` shows regions in the first data set."""
    for node in datasets.values():
        processor = (node.get("vis_processor") or {}).get("eval") or {}
        return str(processor.get("shows", "drawn"))
    return "drawn"


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
