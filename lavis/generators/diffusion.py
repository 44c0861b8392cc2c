"""Images from a diffusion model, any text-to-image pipeline of diffusers (extra `t2i`)."""

from __future__ import annotations

import gc
import logging
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from lavis.common import pretrained
from lavis.common.dist import pick_device
from lavis.common.errors import ConfigError
from lavis.common.registry import generators
from lavis.common.storage.content import folder_digest
from lavis.generators.base import ImageGenerator, ImageRequest, Withheld
from lavis.generators.config import DiffusionConfig

logger = logging.getLogger(__name__)

_NO_PIXELS = {"batch_size", "device"}  # options on which no pixel depends
_CHECKED = ("nsfw_content_detected", "nsfw_detected")  # what pipelines call their checker's flags
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@generators.register("diffusion")
class DiffusionGenerator(ImageGenerator):
    """One pipeline; every image starts from noise of its own CPU generator.

    So an image does not depend on its batch, rank or device but for rounding. The pipeline is
    loaded with the first image that is missing: a full cache needs neither weights nor diffusers.
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
        """Return the options, what the weights are computed in, and a local folder's content.

        Scheduler and safety checker are part of the folder, or of the revision on the hub.
        """
        options = {k: v for k, v in asdict(self.config).items() if k not in _NO_PIXELS}
        folder = Path(self.config.model).expanduser()
        if folder.is_dir():
            options["model"] = folder.name
        return {
            **options,
            "name": self.name,
            "files": folder_digest(folder) if folder.is_dir() else None,
            "dtype": weights_dtype(self.config),
        }

    def __getstate__(self) -> dict[str, Any]:
        """Leave the pipeline behind: another process that draws loads its own."""
        return {**self.__dict__, "_pipeline": None}

    def release(self) -> None:
        """Let go of the pipeline and of its memory on the GPU."""
        if self._pipeline is not None:
            self._pipeline = None
            gc.collect()  # modules and their hooks refer to each other
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()

    def generate(self, requests: Sequence[ImageRequest]) -> list[Image.Image | Withheld]:
        """Return square RGB images, in batches of `batch_size`.

        What the pipeline's safety checker blanks is withheld: the same prompt, index and seed give
        the same noise again, so drawing it again would change nothing.

        Raises:
            ConfigError: diffusers is missing, or the model cannot be loaded.
        """
        images: list[Image.Image | Withheld] = []
        for start in range(0, len(requests), self.batch_size):
            images += self._draw(requests[start : start + self.batch_size])
        return images

    def _draw(self, requests: Sequence[ImageRequest]) -> list[Image.Image | Withheld]:
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
        flags = _flags(drawn, len(requests))
        return [
            Withheld("the pipeline's safety checker") if flag else _checked(image, request)
            for image, flag, request in zip(drawn.images, flags, requests, strict=True)
        ]

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
    pipeline = pretrained.load_pipeline(
        diffusers.AutoPipelineForText2Image,
        config.model,
        refusal=f"model: cannot load the pipeline '{config.model}'",
        revision=config.revision,
        variant=config.variant,
        dtype=_DTYPES[weights_dtype(config)],
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def weights_dtype(config: DiffusionConfig) -> str:
    """Return what the weights are loaded in: as configured, else fp16 on CUDA, fp32 elsewhere.

    Raises:
        ConfigError: CUDA is asked for and not there.
    """
    return config.dtype or ("fp16" if pick_device(config.device).type == "cuda" else "fp32")


def _flags(drawn: Any, count: int) -> list[bool]:
    """Return of each image whether the pipeline blanked it; none where it checks nothing."""
    for name in _CHECKED:
        flags = getattr(drawn, name, None)
        if flags is not None:
            return [bool(flag) for flag in flags]
    return [False] * count


def _checked(image: Image.Image, request: ImageRequest) -> Image.Image:
    """Return the image as RGB; warn of one that is all black, as overflow in fp16 gives."""
    image = image.convert("RGB")
    if not np.asarray(image).any():
        logger.warning(
            "the image of %r (number %d, seed %d) is all black, and no safety checker says why; "
            "it is used. Weights that overflow in fp16 give this: try the option dtype=fp32",
            request.prompt[:80],
            request.index,
            request.seed,
        )
    return image
