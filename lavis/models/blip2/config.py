"""Sections `model` of the BLIP-2 family; imports no torch, so that a config is checked at once."""

from __future__ import annotations

import os
from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from lavis.common.config.fields import STRICT, ExistingPath, FractionBelowOne
from lavis.common.errors import ConfigError
from lavis.models.lora import LoraOptions


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VitConfig:
    """`model.vit`: sizes and weights of the vision tower; None keeps what the named tower has.

    Attributes:
        weights: `.pth` or `.safetensors`, own or LAVIS's keys; used if the checkpoint has no tower.
        embed_dim, depth, num_heads, mlp_ratio, patch_size: sizes of a vision transformer.
        out_indices: stages of a convolutional network whose maps are tokens: a feature-map tower.
        grid: maps are averaged to `grid x grid` tokens.
        input_size: images are resized to this edge inside a feature-map tower (None: as given).
        mean, std: normalisation a feature-map tower expects; images arrive normalised with
            CLIP's and are converted (None: the network's own).
    """

    weights: ExistingPath | None = None
    embed_dim: PositiveInt | None = None
    depth: PositiveInt | None = None
    num_heads: PositiveInt | None = None
    mlp_ratio: PositiveFloat | None = None
    patch_size: PositiveInt | None = None
    out_indices: tuple[int, ...] | None = None
    grid: PositiveInt = 8
    input_size: PositiveInt | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if self.embed_dim and self.num_heads and self.embed_dim % self.num_heads:
            raise ConfigError(
                f"embed_dim {self.embed_dim} is not a multiple of num_heads {self.num_heads}"
            )
        if self.out_indices is not None and not self.out_indices:
            raise ConfigError("out_indices is empty; name at least one stage, e.g. [2]")

    @property
    def is_resized(self) -> bool:
        """Whether a size differs from the named tower's: its public weights do not fit."""
        sizes = (self.embed_dim, self.depth, self.num_heads, self.mlp_ratio, self.patch_size)
        return any(size is not None for size in sizes) or self.out_indices is not None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class QFormerConfig:
    """`model.qformer`: sizes of the querying transformer; the defaults are BLIP-2's.

    Attributes:
        vocab: word-piece vocabulary, a token per line (None: bert-base-uncased's, shipped).
        vocab_size: rows of the word table (None: the vocabulary and `[DEC]`).
        query_init_std: the learnt queries start as N(0, std); equal ones would stay equal.
        hidden_size, num_hidden_layers, num_attention_heads, intermediate_size: as in BERT's config.
        hidden_dropout_prob, attention_probs_dropout_prob, layer_norm_eps: as in BERT's config.
        max_position_embeddings: most tokens of a text.
        initializer_range: standard deviation of fresh weights.
    """

    hidden_size: PositiveInt = 768
    num_hidden_layers: PositiveInt = 12
    num_attention_heads: PositiveInt = 12
    intermediate_size: PositiveInt = 3072
    hidden_dropout_prob: FractionBelowOne = 0.1
    attention_probs_dropout_prob: FractionBelowOne = 0.1
    layer_norm_eps: PositiveFloat = 1e-12
    max_position_embeddings: PositiveInt = 512
    vocab: ExistingPath | None = None
    vocab_size: PositiveInt | None = None
    initializer_range: PositiveFloat = 0.02
    query_init_std: PositiveFloat = 0.02

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"hidden_size {self.hidden_size} is not a multiple of "
                f"num_attention_heads {self.num_attention_heads}"
            )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Blip2Config:
    """What every model of the family has.

    Attributes:
        pretrained, finetuned: weights: a file (`.pth`, `.safetensors`), a URL or a Hugging Face
            folder; `load_finetuned` wins over `load_pretrained`.
        image_size: edge of the square image, pixels.
        vit_precision: the tower's on a GPU (fp32: the run's autocast); on a CPU it is float32.
        use_grad_checkpoint: compute activations of the Q-Former, and of a trained tower, again in
            the backward pass: less memory, more time, the same gradients.
        max_txt_len: longer texts are cut, in tokens with `[CLS]` and `[SEP]`.
        allow_missing: build the model although the checkpoint lacks weights it needs.
        max_texts_per_pass: larger batches of texts go through the Q-Former in several passes.
        load_finetuned, load_pretrained: read those weights; without either they are random.
        vit_model: name of the vision tower: `eva_clip_g`, `clip_L`, or a model of timm.
        num_query_token: learnt queries of the Q-Former.
        cross_attention_freq: every so many layers of the Q-Former look at the image.
        drop_path_rate: of the vision tower in training.
        freeze_vit: do not train the tower.
    """

    arch: str
    model_type: str
    load_finetuned: bool = False
    load_pretrained: bool = True
    pretrained: str | None = None
    finetuned: str | None = None
    vit_model: str = "eva_clip_g"
    image_size: PositiveInt = 224
    num_query_token: PositiveInt = 32
    cross_attention_freq: PositiveInt = 2
    drop_path_rate: FractionBelowOne = 0.0
    use_grad_checkpoint: bool = False
    vit_precision: Literal["fp16", "bf16", "fp32"] = "fp16"
    freeze_vit: bool = True
    max_txt_len: Annotated[int, Field(ge=2)] = 32
    max_texts_per_pass: PositiveInt = 256
    allow_missing: bool = False
    vit: VitConfig = VitConfig()
    qformer: QFormerConfig = QFormerConfig()

    def __post_init__(self) -> None:
        if self.max_txt_len > self.qformer.max_position_embeddings:
            raise ConfigError(
                f"model.max_txt_len is {self.max_txt_len}, but the Q-Former has "
                f"{self.qformer.max_position_embeddings} text positions; use at most that"
            )
        if self.load_finetuned or self.load_pretrained:
            key = "finetuned" if self.load_finetuned else "pretrained"
            _check_checkpoint(f"model.{key}", self.checkpoint, f"model.load_{key}")

    @property
    def tower_image_size(self) -> int | None:
        """Edge that processors must give; a feature-map tower takes any."""
        return self.image_size if self.vit.out_indices is None else None

    @property
    def checkpoint(self) -> str | None:
        """The weights to load, or None for none."""
        if self.load_finetuned:
            return self.finetuned or None
        return (self.pretrained or None) if self.load_pretrained else None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MatcherConfig(Blip2Config):
    """What the critic and stage 1 have.

    Attributes:
        freeze_word_embeddings: keep the word table as it is.
    """

    freeze_word_embeddings: bool = False


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CriticConfig(MatcherConfig):
    """Section `model` of a run with `arch: blip2_critic`.

    Attributes:
        qa_weight, r_weight: weights of the two score losses beside the label loss.
        rationale_target: the rationale head's label; released: `qa_label`, surely meant: `r_label`.
        freeze_word_embeddings: as released: the table is tied to a frozen language-model head.
    """

    arch: str = "blip2_critic"
    qa_weight: NonNegativeFloat = 0.5
    r_weight: NonNegativeFloat = 0.5
    rationale_target: Literal["r_label", "qa_label"] = "r_label"
    freeze_word_embeddings: bool = True


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Stage1Config(MatcherConfig):
    """Section `model` of a run with `arch: blip2`.

    Attributes:
        embed_dim: width of the space in which images and texts are compared.
        temperature_init: start of the learnt temperature.
        same_image: what texts of one image are to each other in the contrast: `positives`,
            `masked` (left out), or `negatives` (as the released data makes them). Hard negatives
            of the matching loss never come from the same image.
    """

    arch: str = "blip2"
    same_image: Literal["positives", "masked", "negatives"] = "positives"
    embed_dim: PositiveInt = 256
    temperature_init: PositiveFloat = 0.07


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GenerativeConfig(Blip2Config):
    """What BLIP-2 models with a language model have.

    Attributes:
        max_txt_len, max_output_txt_len: inputs and outputs are cut, in the language model's tokens.
        prompt: read where `generate` gets no text.
        llm_precision: what the language model computes in on a GPU; on a CPU it is float32.
        lora: adapters that are trained; None leaves the language model as it is.
        language_key: the key that names the language model.
    """

    language_key: ClassVar[str]
    max_txt_len: Annotated[int, Field(ge=2)] = 128
    max_output_txt_len: Annotated[int, Field(ge=2)] = 128
    prompt: str = ""
    llm_precision: Literal["fp16", "bf16", "fp32"] = "bf16"
    lora: LoraOptions | None = None

    @property
    def language_model(self) -> str:
        """Name or folder of the language model."""
        return getattr(self, self.language_key)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class T5Config(GenerativeConfig):
    """Section `model` of a run with `arch: blip2_t5`: an encoder-decoder.

    Attributes:
        t5_model: name or folder, of transformers' form.
    """

    arch: str = "blip2_t5"
    language_key: ClassVar[str] = "t5_model"
    t5_model: str = "google/flan-t5-xl"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OPTConfig(GenerativeConfig):
    """Section `model` of a run with `arch: blip2_opt`: a decoder.

    Attributes:
        opt_model: name or folder, of transformers' form.
    """

    arch: str = "blip2_opt"
    language_key: ClassVar[str] = "opt_model"
    opt_model: str = "facebook/opt-2.7b"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LLMConfig(GenerativeConfig):
    """Section `model` of a run with `arch: blip2_llm`: any decoder, as Vicuna or Gemma.

    Attributes:
        llm_model: name or folder, of transformers' form.
    """

    arch: str = "blip2_llm"
    language_key: ClassVar[str] = "llm_model"
    llm_model: str


def _check_checkpoint(key: str, path: str | None, switch: str) -> None:
    if not path:
        raise ConfigError(
            f"{key}: no weights named; give a file, URL or folder, or set {switch}=false "
            "to start from random weights"
        )
    if "://" not in path and not os.path.exists(os.path.expanduser(path)):
        raise ConfigError(f"{key}: no such file or folder: {path}")
