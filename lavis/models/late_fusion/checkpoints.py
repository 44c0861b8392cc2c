"""Weights of late fusion by name, and on disk: a Hugging Face folder, or the released code's file.

| part | vLMIG, LaMI | ours |
| --- | --- | --- |
| language model | `transformer.`, `model.`, `bert.`, `lm_head.` ... | the same, behind `llm.` |
| vision tower | `mm_model.vision_model.` | `mm_model.tower.` |
| projector, block | `mm_proj.`, `fusion_layer.` | the same |
| a block that started as identity | - | `fusion_input.{scale,shift}` |
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from lavis.common.checkpoint import plain_names, save_safetensors, save_torch
from lavis.common.config.errors import explain
from lavis.common.errors import ConfigError, brief
from lavis.common.sharded import is_sharded
from lavis.common.storage.atomic import write_text
from lavis.models.late_fusion.config import LateFusionConfig, Layout
from lavis.models.late_fusion.families import UNUSED
from lavis.models.late_fusion.fusion import FusionBase

TRAINED = ("mm_proj.", "fusion_layer.", "fusion_input.")
LLM, TOWER, CLIP = "llm.", "mm_model.tower.", "vision_model."
_THEIR_TOWER = "mm_model.vision_model."
# weight that tells the MLP's inner width: ending -> (dimension, divisor)
_INNER = {
    ".mlp.gate_proj.weight": (0, 1),
    ".mlp.gate_up_proj.weight": (0, 2),
    ".mlp.c_fc.weight": (1, 1),
    ".mlp.fc1.weight": (0, 1),
    ".fc1.weight": (0, 1),
    ".intermediate.dense.weight": (0, 1),
}
_BIASES = (".mlp.gate_proj.bias", ".mlp.up_proj.bias", ".mlp.down_proj.bias")
ARCH = "late_fusion"
_LLAMA_MLP = (".mlp.gate_proj.weight", ".mlp.up_proj.weight", ".mlp.down_proj.weight")
_PLACES = ("pretrained", "allow_missing")  # of the machine that saved, not of the model

_CARD = """---
library_name: lavis-commonsense
base_model: {llm}
tags: [late-fusion, vlmig, visual-commonsense]
---

# Late fusion of {llm} with images

`{llm}` and the vision tower `{vision}` are frozen and not in this folder; here are the trained
projector and one fusion block ({parameters:,} numbers, {size:.1f} MB). The text runs through the
language model once; the block lets its last hidden states look at one image, and the predictions
of several images are mixed with the text-only one ({mix}, weights: {weights}).

```python
from lavis.models.late_fusion.model import LateFusion

model = LateFusion.from_pretrained("{folder}")
tokens = model.generate(input_ids, pixel_values=images, image_index=index, scores=scores)
```

- Start of the block: {start}.
- Method: vLMIG (arXiv 2406.13621), LaMI.
- The licences of `{llm}` and `{vision}` hold for what is made with them.
- Training data and results: {notes}
"""


def layout_of(state: Mapping[str, Tensor]) -> Layout | None:
    """Return the layout of weights under our names; None where they hold no projector."""
    first = state.get("mm_proj.linear1.weight")
    if first is None:
        return None
    block = {name: value for name, value in state.items() if name.startswith("fusion_layer.")}
    inner = None
    for ending, (dimension, divisor) in _INNER.items():
        values = [value for name, value in block.items() if name.endswith(ending)]
        if values and inner is None:
            inner = values[0].shape[dimension] // divisor
    return Layout(
        projector_width=first.shape[0],
        vision_width=first.shape[1],
        inner_width=inner,
        mlp_bias=any(name.endswith(".mlp.gate_proj.bias") for name in block),
        is_affine="fusion_input.scale" in state,
    )


def to_native(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of any known file under our names; what is never used is left out."""
    native: dict[str, Tensor] = {}
    for name, value in plain_names(state, "the checkpoint").items():
        if name.startswith(UNUSED):
            continue
        if name.startswith(_THEIR_TOWER):
            name = TOWER + name.removeprefix(_THEIR_TOWER)
        elif not name.startswith((*TRAINED, LLM, "mm_model.")):
            name = LLM + name
        native[name] = value
    return native


def to_released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights under vLMIG's names."""
    released = {}
    for name, value in state.items():
        if name.startswith(TOWER):
            name = _THEIR_TOWER + name.removeprefix(TOWER).removeprefix(CLIP)
        released[name.removeprefix(LLM)] = value
    return released


def is_trained(name: str) -> bool:
    """Return whether a weight belongs to the small part that a checkpoint must hold."""
    return name.startswith(TRAINED)


def fit_to(state: Mapping[str, Tensor], own: Iterable[str]) -> dict[str, Tensor]:
    """Return weights under the names a built model has.

    `vision_model.` in names of the tower came and went in the library. vLMIG's Llama has MLP
    biases in the language model as well, all 0, as no published Llama has any.

    Raises:
        ConfigError: such a bias is not 0.
    """
    owned = set(own)
    nested = any(name.startswith(TOWER + CLIP) for name in owned)
    fitted = {}
    for name, value in state.items():
        if name.startswith(TOWER):
            rest = name.removeprefix(TOWER).removeprefix(CLIP)
            name = TOWER + (CLIP if nested else "") + rest
        if name not in owned and name.startswith(LLM) and name.endswith(_BIASES):
            if value.any():
                raise ConfigError(
                    f"{name} is not 0, but the MLP of model.llm has no biases; name the language "
                    "model that the checkpoint was trained with"
                )
            continue
        fitted[name] = value
    return fitted


def save_pretrained(
    model: FusionBase, folder: str | Path, *, notes: str = "not stated", save_frozen: bool = False
) -> None:
    """Write `config.json`, `model.safetensors` and a model card.

    Args:
        notes: training data and results, for the card.
        save_frozen: also write the frozen weights, which the names in the config stand for.
    """
    folder = Path(folder)
    state = model.full_state_dict() if save_frozen else model.trainable_state_dict()
    save_safetensors(folder / "model.safetensors", state, {"format": "pt", "arch": ARCH})
    fields = dataclasses.asdict(model.config)
    kept = {name: value for name, value in fields.items() if name not in _PLACES}
    tree = {"architectures": [type(model).__name__], **kept}
    text = json.dumps(tree, indent=2, sort_keys=True) + "\n"
    write_text(folder / "config.json", text)
    trained = model.trainable_state_dict().values()
    affine = model.fusion_input.is_affine
    card = _CARD.format(
        llm=model.config.llm,
        vision=model.config.vision.name,
        parameters=sum(value.numel() for value in trained),
        size=sum(value.numel() * value.element_size() for value in trained) / 1e6,
        mix=model.config.mix,
        weights=model.config.weights,
        folder=folder.name,
        start="identity, the language model's own predictions" if affine else "random, as released",
        notes=notes,
    )
    write_text(folder / "README.md", card)


def read_config(source: str | Path, overrides: Mapping[str, Any]) -> LateFusionConfig:
    """Return the config of a folder that `save_pretrained` wrote, or such a repository on the hub.

    Args:
        overrides: fields of `LateFusionConfig` that win over the folder's, e.g. `llm="/folder"`.

    Raises:
        ConfigError: the folder holds something else.
    """
    folder = Path(os.path.expanduser(source))
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(str(source)))
        except (OSError, ValueError) as error:
            raise ConfigError(f"no folder '{source}', and not on the hub: {error}") from None
    path = folder / "config.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read: {brief(error)}") from None
    if not isinstance(fields, dict) or fields.pop("arch", None) != ARCH:
        raise ConfigError(f"{path}: not the config of a late fusion model")
    fields.pop("architectures", None)
    fields.update(overrides, pretrained=str(folder))
    try:
        return TypeAdapter(LateFusionConfig).validate_python(fields)
    except ValidationError as error:
        message = explain(error, LateFusionConfig, fields, "model", source=lambda _: str(path))
        raise ConfigError(message) from None


def check_exportable(model: FusionBase) -> None:
    """Raise `ConfigError` where released code cannot run it: identity start, quantised model."""
    if model.fusion_input.is_affine:
        raise ConfigError(
            "a block that started as identity reads the hidden states in a form that released "
            "code does not know; train with model.fusion.init=random to export a .bin"
        )
    if model.config.quantize:
        raise ConfigError("a quantised language model cannot be exported; set model.quantize=null")
    if is_sharded(model):
        raise ConfigError(
            "FSDP splits the weights, so a .bin cannot be written in training; set "
            "run.export_vlmig=null and export the checkpoint"
        )


def export_vlmig_bin(model: FusionBase, path: str | Path) -> None:
    """Write all weights as released training does, by `torch.save`; see `check_exportable`."""
    check_exportable(model)
    save_torch(path, with_released_biases(model))


def with_released_biases(model: FusionBase) -> dict[str, Tensor]:
    """Return all weights, with the MLP biases that vLMIG's Llama has: 0 where ours has none."""
    state = model.full_state_dict()
    if model.language.config.model_type != "llama":
        return state
    for name, weight in list(state.items()):
        bias = name.removesuffix("weight") + "bias"
        if name.endswith(_LLAMA_MLP) and bias not in state:
            state[bias] = weight.new_zeros(len(weight))
    return state
