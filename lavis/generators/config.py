"""Settings of generators, scorers and the image store; imports no torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from lavis.common import registry
from lavis.common.config.fields import STRICT, Device, Fraction
from lavis.common.errors import ConfigError

ClipRule = Literal["released"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DiffusionConfig:
    """Options of `diffusion`.

    Attributes:
        model: Hugging Face id or folder of any text-to-image pipeline of diffusers.
        revision: commit or tag of the model on the hub.
        variant: name of the weight files, such as `fp16` (null: the plain ones).
        dtype: of the weights (null: fp16 on CUDA, fp32 elsewhere).
        steps: denoising steps; SDXL-Turbo is made for 1.
        guidance_scale: 0 is no guidance, which SDXL-Turbo is made for.
        negative_prompt: what images should not show; needs guidance.
        image_size: edge of the square images, pixels.
        batch_size: images drawn at a time.
    """

    model: str = "stabilityai/sdxl-turbo"
    revision: str | None = None
    variant: str | None = None
    dtype: Literal["fp32", "bf16", "fp16"] | None = None
    steps: PositiveInt = 1
    guidance_scale: NonNegativeFloat = 0.0
    negative_prompt: str | None = None
    image_size: PositiveInt = 512
    batch_size: PositiveInt = 10
    device: Device = "auto"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RetrievalConfig:
    """Options of `retrieval`.

    Attributes:
        records: captions: `.jsonl` or `.parquet`, a row a caption.
        image_root: folder that image names are relative to (null: the records' folder).
        image_field: image of a row: a file name, or in parquet also encoded bytes.
        caption_field: a text or a list of texts.
        similarity: `tfidf` compares words; `clip` compares CLIP text embeddings.
        clip_model: Hugging Face id or folder, for `clip`.
    """

    records: str
    image_root: str | None = None
    image_field: str = "image"
    caption_field: str = "caption"
    similarity: Literal["tfidf", "clip"] = "tfidf"
    clip_model: str = "openai/clip-vit-base-patch32"
    batch_size: PositiveInt = 64
    device: Device = "auto"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FolderConfig:
    """Options of `folder`.

    Attributes:
        root: folder of images named after their prompts (see `lavis.generators.folder`).
        manifest: `.jsonl` of `{"prompt": ..., "images": [...]}`, files relative to `root`.
        missing: what a prompt without (enough) images does: `error`, or `repeat` those it has.
    """

    root: str
    manifest: str | None = None
    missing: Literal["error", "repeat"] = "error"
    batch_size: PositiveInt = 64


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TextEmbedConfig:
    """Options of `text_embed`.

    Attributes:
        model: Hugging Face id or folder of a CLIP model.
        of: `prompt` embeds the whole prompt; `words` embeds its content words one by one.
        num_tokens: P, embeddings that stand for one image.
    """

    model: str = "openai/clip-vit-base-patch32"
    of: Literal["prompt", "words"] = "prompt"
    num_tokens: PositiveInt = 1
    batch_size: PositiveInt = 64
    device: Device = "auto"

    def __post_init__(self) -> None:
        if self.of == "prompt" and self.num_tokens != 1:
            raise ConfigError(
                f"num_tokens: {self.num_tokens} found, but of: prompt gives one embedding; "
                "write num_tokens: 1, or of: words"
            )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ImagesConfig:
    """Where a task's images come from, and what they are worth.

    Attributes:
        generator: registered name.
        options: the generator's own options.
        num_images: K images of a text; 0 is the text-only run.
        prompt_rule: `sentences` as published (sentences from the last one back, then an anchor);
            `verbatim` draws the whole text K times, as the published ImageNetVC run does.
        anchor_words: words of the anchor, the last ones of the text (BoolQ was published with 60).
        seed: with prompt and index it fixes an image.
        scorer: registered name, or null.
        clip_model: of the scorer `clip`.
        clip_compat: `released` scores as the published code does, with its faults.
        cache_dir: images, features and scores; many processes and runs may share it.
        stored_size: images are reduced to this shortest edge before they are stored.
        stored_format: both are lossless; WebP is smaller, PNG is faster to write.
        skip_when_certain: no images where the text-only answer has at least this probability.
    """

    generator: str = "diffusion"
    options: dict[str, Any] = Field(default_factory=dict)
    num_images: NonNegativeInt = 10
    prompt_rule: Literal["sentences", "verbatim"] = "sentences"
    anchor_words: PositiveInt = 70
    seed: int = 0
    scorer: str | None = "clip"
    clip_model: str = "openai/clip-vit-base-patch32"
    clip_compat: ClipRule | None = None
    cache_dir: str = "~/.cache/lavis/pictures"
    stored_size: PositiveInt | None = None
    stored_format: Literal["webp", "png"] = "webp"
    skip_when_certain: Fraction | None = None
    device: Device = "auto"

    def __post_init__(self) -> None:
        registry.generators.check(self.generator, "generator")
        if self.scorer is not None:
            registry.scorers.check(self.scorer, "scorer")
