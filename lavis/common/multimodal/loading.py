"""Loading of any vision-language model of transformers with its processor, by name or folder."""

from __future__ import annotations

from typing import Any, Literal

from lavis.common.errors import ConfigError
from lavis.common.multimodal.chat import open_thought, write_chat
from lavis.common.multimodal.families import family_of
from lavis.common.pretrained import load_pretrained, load_whole_model

Dtype = Literal["auto", "fp32", "bf16", "fp16"]
Quantization = Literal["int8", "nf4"]


def load_vlm(
    name: str,
    *,
    revision: str | None = None,
    dtype: Dtype = "auto",
    quantization: Quantization | None = None,
    device: Any,
    refusal: str,
    weights: bool = True,
) -> tuple[Any, Any]:
    """Return a processor and an `AutoModelForImageTextToText`, in evaluation mode on a device.

    Code of the folder is never run, and only safetensors are read.

    Args:
        name: Hugging Face id, or a folder.
        dtype: what the model computes in; `auto` is float32 on a CPU, else what its files are in,
            of which float32 becomes bfloat16.
        quantization: of the language model's matrices, by bitsandbytes, on a GPU only.
        device: a `torch.device`.
        refusal: beginning of a message, such as `model.name: cannot load 'x'`.
        weights: False gives the model's form on the device `meta`, and reads no weights.

    Raises:
        ConfigError: it cannot be loaded, its family cannot be used, it has no image processor or
            tokenizer, or reasons before every answer.

    Example:
        >>> processor, model = load_vlm(
        ...     "Qwen/Qwen3-VL-2B-Instruct", device=torch.device("cuda"), refusal="model.name"
        ... )
    """
    from transformers import (
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        AutoConfig,
        AutoModelForImageTextToText,
        AutoProcessor,
    )

    config = load_pretrained(AutoConfig, name, refusal=refusal, revision=revision)
    family = family_of(config.model_type)
    if family.refused:
        raise ConfigError(f"{refusal}: {family.refused}")
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise ConfigError(
            f"{refusal}: a '{config.model_type}' writes no text about images in the installed "
            "transformers; name a model of AutoModelForImageTextToText"
        )
    processor = load_pretrained(AutoProcessor, name, refusal=refusal, revision=revision)
    for part in ("image_processor", "tokenizer"):
        if getattr(processor, part, None) is None:
            raise ConfigError(f"{refusal}: its processor has no {part}; copy its files there")
    check_thinking(processor, config.model_type, refusal)
    if not weights:
        import torch

        make: Any = AutoModelForImageTextToText.from_config
        with torch.device("meta"):
            return processor, make(config).eval()
    options: dict[str, Any] = {"use_safetensors": True}
    if quantization is not None:
        options |= {
            "quantization_config": quantization_config(quantization, device, refusal),
            "device_map": {"": device},
        }
    model = load_whole_model(
        AutoModelForImageTextToText,
        name,
        refusal=refusal,
        revision=revision,
        dtype=pick_dtype(config, dtype, device),
        **options,
    )
    return processor, (model if quantization else model.to(device)).eval()


def pick_dtype(config: Any, dtype: Dtype, device: Any) -> Any:
    """Return the `torch.dtype` that `load_vlm` describes."""
    import torch

    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if dtype in named:
        return named[dtype]
    if device.type == "cpu":
        return torch.float32
    own = getattr(config, "dtype", None)
    return own if own in (torch.float16, torch.bfloat16) else torch.bfloat16


def quantization_config(quantization: Quantization, device: Any, refusal: str) -> Any:
    """Return bitsandbytes' settings; `ConfigError` without a GPU or the package."""
    import importlib.util

    if device.type != "cuda":
        raise ConfigError(f"{refusal}: model.quantization={quantization} needs a GPU; use null")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"{refusal}: model.quantization={quantization} needs bitsandbytes: "
            "pip install 'lavis-commonsense[quantized]'"
        )
    import torch
    from transformers import BitsAndBytesConfig

    config: Any = BitsAndBytesConfig

    if quantization == "int8":
        return config(load_in_8bit=True)
    return config(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )


def check_thinking(processor: Any, model_type: str, refusal: str) -> None:
    """Raise `ConfigError` for a template that opens the model's reasoning although told not to."""
    content = [{"type": "image"}, {"type": "text", "text": "?"}]
    family = family_of(model_type)
    prompt = write_chat(processor, [{"role": "user", "content": content}], family=family)
    mark = open_thought(prompt)
    if mark:
        raise ConfigError(
            f"{refusal}: its template opens {mark} before every answer and has no switch against "
            "it, so its next word is no answer; use the model's variant without reasoning "
            "(often named Instruct)"
        )
