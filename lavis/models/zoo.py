"""Models by name, as LAVIS users know them; a model's module is imported when its name is used."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lavis.common.config.files import read_yaml
from lavis.common.config.loading import load_model_config
from lavis.common.errors import ConfigError
from lavis.common.registry import import_module, models, processors

Processors = dict[str, Any]  # "train" and "eval" -> processor


def load_model(
    name: str,
    model_type: str,
    is_eval: bool = False,
    device: str = "cpu",
    checkpoint: str | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
) -> Any:
    """Build a model from its default YAML with the weights that YAML names.

    Args:
        name: registered architecture, e.g. `blip2_critic`.
        model_type: one of its default YAMLs, e.g. `pretrain`.
        checkpoint: file, URL or folder loaded over the YAML's weights; trainable ones suffice.
        overrides: values of the `model` section that win over the YAML's.

    Example:
        >>> critic = load_model(
        ...     "blip2_critic", "pretrain", is_eval=True, checkpoint="critic.safetensors"
        ... )
        >>> critic.predict({"image": image, "text_input": ["a dog on grass"]})["prediction"]
        tensor([[0.03, 0.97]])
    """
    return _load(name, model_type, is_eval, device, checkpoint=checkpoint, overrides=overrides)[0]


def load_model_and_preprocess(
    name: str,
    model_type: str,
    is_eval: bool = False,
    device: str = "cpu",
    *,
    overrides: Mapping[str, Any] | None = None,
) -> tuple[Any, Processors, Processors]:
    """Return the model, its image processors and its text processors.

    Example:
        >>> model, images, texts = load_model_and_preprocess("blip2", "coco", is_eval=True)
        >>> image = images["eval"](Image.open("dog.jpg").convert("RGB"))[None]
        >>> model.score({"image": image, "text_input": [texts["eval"]("a dog on grass")]})["itm"]
        tensor([2.4])
    """
    model, preprocess = _load(name, model_type, is_eval, device, overrides=overrides)
    return model, *load_preprocess(preprocess)


def _load(
    name: str,
    model_type: str,
    is_eval: bool,
    device: str,
    *,
    checkpoint: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> tuple[Any, dict[str, Any]]:
    config, preprocess = load_model_config(name, model_type, overrides)
    model = models.get(name).from_config(config)
    if checkpoint is not None:
        model.load_checkpoint(checkpoint)
    return model.train(not is_eval).to(device), preprocess


def load_run(
    folder: str | Path,
    checkpoint: str = "checkpoint_best",
    *,
    without: Collection[str] = (),
) -> tuple[Any, dict[str, Any]]:
    """Return the model of a training run, and the run's resolved config.

    Args:
        folder: `run.output_dir`.
        checkpoint: a checkpoint's folder inside it, or a file of weights.
        without: options of the model that are left at their defaults.

    Raises:
        ConfigError: the folder is no training run's, or has no such checkpoint.
    """
    from lavis.common.checkpoint import read_state_dict

    path = Path(folder) / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"{folder}: no config.yaml; name the output folder of a training run")
    inside = Path(folder) / checkpoint / "model.safetensors"
    weights = next((file for file in (inside, Path(checkpoint)) if file.is_file()), None)
    if weights is None:
        raise ConfigError(f"{checkpoint}: neither a checkpoint in {folder} nor a file")
    tree: Any = OmegaConf.to_container(read_yaml(path), resolve=True)
    for module in tree.get("run", {}).get("import_modules") or []:
        import_module(module, f"{path}, run.import_modules")
    section = {key: value for key, value in tree["model"].items() if key not in without}
    try:
        config, _ = load_model_config(section["arch"], section["model_type"], section)
    except ConfigError as error:
        raise ConfigError(f"{path}, {error}") from None
    model = models.get(section["arch"]).from_config(config)
    model.load_state(read_state_dict(str(weights)), source=str(weights))
    return model.eval(), tree


def load_preprocess(config: Mapping[str, Any]) -> tuple[Processors, Processors]:
    """Build the processors of a `preprocess` section.

    Args:
        config: `vis_processor` and `text_processor`, each with `train` and `eval` nodes
            `{name: registered name, ...}`; an absent node stands for no change.

    Returns:
        Image processors and text processors, each by `"train"` and `"eval"`.
    """
    built = []
    for kind in ("vis_processor", "text_processor"):
        nodes = config.get(kind) or {}
        built.append({split: _processor(nodes.get(split)) for split in ("train", "eval")})
    return built[0], built[1]


def _processor(node: Mapping[str, Any] | None) -> Any:
    arguments = dict(node or {"name": "base"})
    return processors.get(str(arguments.pop("name"))).from_config(arguments)


class ModelZoo:
    """Table of architectures and types: `print(model_zoo)`, `len(model_zoo)`, iteration."""

    def __iter__(self) -> Any:
        """Iterate over `(architecture, type)`."""
        return iter([(name, kind) for name in models.list() for kind in models.defaults(name)])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __str__(self) -> str:
        rows = [f"{'Architecture':<30} Types", "-" * 60]
        for name in models.list():
            rows.append(f"{name:<30} {', '.join(models.defaults(name))}")
        return "\n".join(rows)


model_zoo = ModelZoo()
