"""Section `model` of late fusion; imports no torch, so that a config is checked at once."""

from __future__ import annotations

import os
from dataclasses import dataclass as plain_dataclass
from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from lavis.common.config.fields import STRICT
from lavis.common.errors import ConfigError

Mix = Literal["logits", "probs"]
Weights = Literal["clip", "clip_relative", "mean", "entropy", "max_confidence"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VisionConfig:
    """`model.vision`: the frozen tower, and which of its tokens the language model gets.

    Attributes:
        name: Hugging Face id or folder, `timm:<model>`, or null where samples always bring
            `vision_features` (cached ones, text embeddings); `width` is needed then.
        weights: `pretrained`, `config` (random weights, for tests), or a file of weights.
        layer: the layer whose output is read; -1 is the last, -2 the one before it, as released.
        drop_class_token: keep only the tokens of the image's patches.
        image_size: edge of a timm tower's square images (null: its own); transformers' take any.
        grid: tokens are averaged to `grid x grid` (null: all of them).
        out_indices: stages of a convolutional timm network whose maps become tokens.
        input_size: images are resized to this edge inside such a network (null: as given).
        width: width of a token (null: the tower's).
    """

    name: str | None = "openai/clip-vit-base-patch32"
    weights: str = "pretrained"
    layer: int = -2
    drop_class_token: bool = True
    image_size: PositiveInt | None = None
    grid: PositiveInt | None = None
    out_indices: tuple[int, ...] | None = None
    input_size: PositiveInt | None = None
    width: PositiveInt | None = None

    def __post_init__(self) -> None:
        if self.name is None and self.width is None:
            raise ConfigError(
                "model.vision.name is null: name a tower, or give model.vision.width, the width "
                "of the vision_features that samples bring"
            )
        if self.weights not in ("pretrained", "config") and not _is_there(self.weights):
            raise ConfigError(
                f"model.vision.weights: no such file: {self.weights}; name one, or write "
                "'pretrained' or 'config'"
            )
        if self.out_indices is not None and not (self.name or "").startswith("timm:"):
            raise ConfigError(
                f"model.vision.out_indices is for convolutional networks of timm, but "
                f"model.vision.name is '{self.name}'; write timm:<model>, or leave it out"
            )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FusionConfig:
    """`model.fusion`: the trained block, a layer of the language model's own family.

    Attributes:
        init: `identity` starts with the language model's own predictions; `random` as released.
            Where `model.pretrained` is given, what that file holds is built.
        intermediate_size: inner width of the block's MLP (null: the language model's).
        gain_lr_scale: factor on the learning rate of gains that start at zero (`identity`, families
            with norms after attention and MLP); they hold back everything behind them.
    """

    init: Literal["identity", "random"] = "identity"
    intermediate_size: PositiveInt | None = None
    gain_lr_scale: PositiveFloat = 10.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LateFusionConfig:
    """Section `model` of a run with `arch: late_fusion`.

    Attributes:
        llm: name or folder of the frozen language model, causal or of BERT's kind.
        llm_weights: `config` builds random weights from its config.json.
        llm_dtype: what the language model is kept in (null: as its files are).
        quantize: keeps the language model's matrices in 8 or 4 bits (bitsandbytes, CUDA).
        projector_expansion: inner width of the projector over the language model's (null: the
            checkpoint's, else 4 for gpt2 and bert and 1 for others, as released).
        gemma_layout: `merge` puts the images in the place of Gemma's start token (vLMIG),
            `concat` in front of it as for all others (LaMI).
        llama_mlp_bias: the block's MLP has biases, as vLMIG's Llama (null: checkpoint's, else no).
        num_images: K, images requested per text; 0 is the text-only baseline.
        mix: what is averaged: `logits`, as the code of vLMIG and LaMI, or `probs`, as their papers.
        weights: weight of each image; see `lavis.models.late_fusion.mixing`.
        weight_multiplier: factor on the scores (2 in released ImageNetVC runs).
        clamp_weights: keep weights in [0, 1]; released code does not.
        pretrained: trained weights: `.bin` or `.safetensors`, of vLMIG, LaMI or ours, or a folder.
        allow_missing: build although `pretrained` lacks trained weights.
        loss_chunk: rows whose logits over the vocabulary exist at the same time. (512 of GPT-2's
            take 100 MB; on a CPU the loss and its gradient took 0.8 of the time of 128.)
        use_grad_checkpoint: compute the block again in the backward pass to save memory.
    """

    arch: str = "late_fusion"
    model_type: str = "default"
    llm: str
    llm_weights: Literal["pretrained", "config"] = "pretrained"
    llm_dtype: Literal["fp32", "bf16", "fp16"] | None = None
    quantize: Literal["int8", "nf4"] | None = None
    vision: VisionConfig = VisionConfig()
    projector_expansion: PositiveFloat | None = None
    fusion: FusionConfig = FusionConfig()
    gemma_layout: Literal["merge", "concat"] = "merge"
    llama_mlp_bias: bool | None = None
    num_images: NonNegativeInt = 10
    mix: Mix = "probs"
    weights: Weights = "clip"
    weight_multiplier: PositiveFloat = 1.0
    clamp_weights: bool = True
    pretrained: str | None = None
    allow_missing: bool = False
    loss_chunk: PositiveInt = 512
    use_grad_checkpoint: bool = False

    def __post_init__(self) -> None:
        if self.mix == "probs" and not self.clamp_weights:
            raise ConfigError(
                "model.clamp_weights is false with model.mix=probs: weights above 1 would give "
                "negative probabilities; set model.clamp_weights=true or model.mix=logits"
            )
        if self.quantize and self.llm_weights == "config":
            raise ConfigError(
                "model.quantize needs weights to quantise; set model.llm_weights=pretrained"
            )
        path = self.pretrained
        if path and not _is_there(path) and not _is_there(path + ".bin"):
            raise ConfigError(f"model.pretrained: no such file or folder: {path}")

    @property
    def checkpoint(self) -> str | None:
        """The weights to load, with the ending that released commands leave out."""
        path = self.pretrained
        return path + ".bin" if path and not _is_there(path) else path


@plain_dataclass(frozen=True)
class Layout:
    """What a file of trained weights says about the model it belongs to.

    Attributes:
        projector_width: inner width of the projector.
        vision_width: width of the vision features.
        inner_width: inner width of the block's MLP, None where no name tells it.
        mlp_bias: the MLP of a Llama block has biases.
        is_affine: the block started as identity.
    """

    projector_width: int
    vision_width: int
    inner_width: int | None
    mlp_bias: bool
    is_affine: bool


def _is_there(path: str) -> bool:
    return "://" in path or os.path.exists(os.path.expanduser(path))
