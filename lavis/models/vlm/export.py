"""A trained vision-language model as a folder that plain transformers loads: adapters merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from lavis.common.errors import ConfigError
from lavis.common.pretrained import load_pretrained
from lavis.models.vlm.adapters import merge_adapters
from lavis.models.vlm.model import VlmModel


def export_vlm(model: VlmModel, folder: Path) -> None:
    """Write weights with the adapters merged, configs and the processor; `model` is used up.

    Weights keep the type of the files that training began with; what is added to them is added in
    float32. Whatever ends an answer in training ends `generate`.

    Raises:
        ConfigError: quantized weights, into which adapters cannot be merged exactly.

    Example:
        >>> export_vlm(model, Path("student_hf"))
        >>> AutoModelForImageTextToText.from_pretrained("student_hf")
    """
    if model.config.quantization is not None:
        raise ConfigError("model.quantization: quantized weights are not exported; use null")
    vlm: Any = model.vlm
    name = model.config.name
    refusal = f"model.name: cannot load '{name}'"
    files = load_pretrained(AutoConfig, name, refusal=refusal, revision=model.config.revision)
    merge_adapters(vlm.float())
    settings = vlm.generation_config
    own = settings.eos_token_id
    ends = set(own if isinstance(own, list) else [] if own is None else [own])
    settings.eos_token_id = sorted(ends | set(model.encoder.stops))
    vlm.to(files.dtype or torch.float32).save_pretrained(folder)
    model.processor.save_pretrained(folder)
