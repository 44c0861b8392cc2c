"""Pictures from a diffusion model, any text-to-image pipeline of diffusers (extra `t2i`)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image

from lavis.common import pretrained
from lavis.common.dist import pick_device
from lavis.common.errors import ConfigError
from lavis.common.registry import generators
from lavis.generators.base import PictureGenerator, PictureRequest
from lavis.generators.config import DiffusionConfig

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@generators.register("diffusion")
class DiffusionGenerator(PictureGenerator):
    """One pipeline; every picture starts from noise of its own CPU generator.

    So a picture does not depend on its batch, rank or device but for rounding. The pipeline is
    loaded with the first picture that is missing: a full cache needs neither weights nor diffusers.
    """

    name: ClassVar[str] = "diffusion"

    def __init__(self, config: DiffusionConfig) -> None:
        self.config = config
        self.batch_size = config.batch_size
        self._pipeline: Any = None

    @classmethod
    def from_config(cls, config: DiffusionConfig) -> DiffusionGenerator:
        """Build; nothing is loaded yet."""
        return cls(config)

    def fingerprint(self) -> dict[str, Any]:
        """Return model, revision, steps, guidance, size, and a local folder's weight files."""
        config = self.config
        folder = Path(config.model).expanduser()
        return {
            "name": self.name,
            "model": folder.name if folder.is_dir() else config.model,
            "files": _files_hash(folder) if folder.is_dir() else None,
            "revision": config.revision,
            "variant": config.variant,
            "dtype": config.dtype,
            "steps": config.steps,
            "guidance_scale": config.guidance_scale,
            "negative_prompt": config.negative_prompt,
            "image_size": config.image_size,
        }

    def generate(self, requests: Sequence[PictureRequest]) -> list[Image.Image]:
        """Return square RGB pictures, in batches of `batch_size`.

        Raises:
            ConfigError: diffusers is missing, or the model cannot be loaded.
        """
        pictures: list[Image.Image] = []
        for start in range(0, len(requests), self.batch_size):
            pictures += self._draw(requests[start : start + self.batch_size])
        return pictures

    def _draw(self, requests: Sequence[PictureRequest]) -> list[Image.Image]:
        config = self.config
        options: dict[str, Any] = {}
        if config.negative_prompt is not None:
            options["negative_prompt"] = [config.negative_prompt] * len(requests)
        drawn = self._loaded()(
            prompt=[request.prompt for request in requests],
            num_inference_steps=config.steps,
            guidance_scale=config.guidance_scale,
            height=config.image_size,
            width=config.image_size,
            generator=[torch.Generator("cpu").manual_seed(r.random_seed) for r in requests],
            output_type="pil",
            **options,
        )
        return [picture.convert("RGB") for picture in drawn.images]

    def _loaded(self) -> Any:
        if self._pipeline is None:
            self._pipeline = load_pipeline(self.config)
        return self._pipeline


def load_pipeline(config: DiffusionConfig) -> Any:
    """Return the pipeline on its device, without a progress bar of its own.

    Raises:
        ConfigError: diffusers is missing, or the model cannot be loaded.
    """
    try:
        diffusers = import_module("diffusers")
    except ImportError:
        raise ConfigError(
            "generator 'diffusion' needs the package 'diffusers'; install the extra: "
            "pip install 'lavis-commonsense[t2i]'"
        ) from None
    device = pick_device(config.device)
    dtype = config.dtype or ("fp16" if device.type == "cuda" else "fp32")
    pipeline = pretrained.load_pipeline(
        diffusers.AutoPipelineForText2Image,
        config.model,
        refusal=f"model: cannot load the pipeline '{config.model}'",
        revision=config.revision,
        variant=config.variant,
        torch_dtype=_DTYPES[dtype],
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def _files_hash(folder: Path) -> str:
    """Return a hash of a pipeline folder's file names and sizes, and of its settings."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(json.dumps([str(path.relative_to(folder)), path.stat().st_size]).encode())
        if path.suffix == ".json":
            digest.update(path.read_bytes())
    return digest.hexdigest()
