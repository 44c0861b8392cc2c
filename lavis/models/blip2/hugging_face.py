"""Students as models of plain transformers: the same weights under its names, its configs.

The one difference: transformers has one epsilon for all norms of the tower (1e-6), BLIP-2's
`ln_vision` has 1e-5, which changes its outputs by some millionths.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2Processor,
    BlipImageProcessor,
)

from lavis.common.errors import ConfigError
from lavis.common.pixels import CLIP_MEAN, CLIP_STD
from lavis.models.blip2 import keys
from lavis.models.blip2.base import Blip2Base
from lavis.models.blip2.generative import Blip2Generative
from lavis.models.blip2.stage1 import Blip2Stage1

_DROPPED = ("lm_head.", "temp")  # transformers' retrieval class has no caption head


def export_student(model: Blip2Base, folder: str | Path) -> nn.Module:
    """Write a student as a folder that plain transformers loads; returns transformers' model.

    Stage 1 becomes `Blip2ForImageTextRetrieval` (its caption head and temperature stay behind), a
    generative student `Blip2ForConditionalGeneration`, adapters merged. The folder's processor
    resizes and normalises images as ours; regions are drawn before.

    Raises:
        ConfigError: the model is neither, or transformers has no such vision tower.
    """
    if isinstance(model, Blip2Stage1):
        exported, processor = _retrieval(model)
    elif isinstance(model, Blip2Generative):
        exported, processor = _generation(model)
    else:
        raise ConfigError(
            f"model.arch: {type(model).__name__} has no class in transformers; export blip2, "
            "blip2_t5, blip2_opt or blip2_llm, or use the LAVIS form"
        )
    exported.eval()
    exported.save_pretrained(folder)
    processor.save_pretrained(folder)
    return exported


def _retrieval(model: Blip2Stage1) -> tuple[Any, Blip2Processor]:
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.model_max_length = model.config.max_txt_len
    processor = _processor(model, tokenizer)
    config = Blip2Config(
        vision_config=_vision_config(model),
        qformer_config=_qformer_config(model),
        num_query_tokens=model.config.num_query_token,
        image_text_hidden_size=model.config.embed_dim,
        image_token_index=_image_token(processor),  # cut off again before words are looked up
    )
    exported = Blip2ForImageTextRetrieval(config)
    kept = {k: v for k, v in model.state_dict().items() if not k.startswith(_DROPPED)}
    _fill(exported, keys.to_hugging_face(kept))
    return exported, processor


def _generation(model: Blip2Generative) -> tuple[Any, Blip2Processor]:
    language_model: Any = model.language_model
    if model.config.lora is not None:
        language_model = copy.deepcopy(language_model).merge_and_unload()
    processor = _processor(model, copy.deepcopy(model.llm_tokenizer))
    config: Any = Blip2Config(
        vision_config=_vision_config(model),
        qformer_config=_qformer_config(model),
        text_config=language_model.config.to_dict(),
        num_query_tokens=model.config.num_query_token,
        image_token_index=_image_token(processor),
    )
    exported: Any = Blip2ForConditionalGeneration(config)
    # T5's config does not restore its activation from a plain dict
    own = {k: v for k, v in model.state_dict().items() if not k.startswith("language_model.")}
    text = {f"language_model.{k}": v.float() for k, v in language_model.state_dict().items()}
    _fill(exported, {**keys.to_hugging_face(own), **text})
    rows = exported.get_input_embeddings().num_embeddings
    if config.image_token_index >= rows:  # no spare row: the new one is never written
        exported.language_model.resize_token_embeddings(config.image_token_index + 1)
        config.text_config.vocab_size = config.image_token_index + 1
    exported.generation_config = copy.deepcopy(language_model.generation_config)
    return exported, processor


def _fill(exported: nn.Module, state: Mapping[str, Tensor]) -> None:
    own = exported.state_dict()
    missing = sorted(set(own) - set(state))
    unexpected = sorted(set(state) - set(own))
    if missing or unexpected:
        names = ", ".join([*missing[:3], *unexpected[:3]])
        raise ConfigError(
            f"model.vit_model: transformers' BLIP-2 has no such tower ({names}); it has "
            "eva_clip_g only. Use the LAVIS form"
        )
    exported.load_state_dict(state)


def _processor(model: Blip2Base, tokenizer: Any) -> Blip2Processor:
    size = model.config.image_size
    images = BlipImageProcessor(
        size={"height": size, "width": size},
        image_mean=list(CLIP_MEAN),
        image_std=list(CLIP_STD),
        resample=3,  # bicubic
    )
    return Blip2Processor(images, tokenizer, num_query_tokens=model.config.num_query_token)


def _image_token(processor: Any) -> int:
    return processor.tokenizer.convert_tokens_to_ids(processor.image_token.content)


def _vision_config(model: Blip2Base) -> dict[str, Any]:
    tower: Any = model.visual_encoder
    block: Any = tower.blocks[0] if hasattr(tower, "blocks") else None
    if not hasattr(getattr(block, "attn", None), "q_bias"):
        raise ConfigError(
            f"model.vit_model: transformers' BLIP-2 has no tower as {model.config.vit_model}; it "
            "has eva_clip_g only. Use the LAVIS form"
        )
    return {
        "hidden_size": tower.num_features,
        "intermediate_size": block.mlp.fc1.out_features,
        "num_hidden_layers": len(tower.blocks),
        "num_attention_heads": block.attn.num_heads,
        "image_size": model.config.image_size,
        "patch_size": tower.patch_embed.proj.kernel_size[0],
        "layer_norm_eps": block.norm1.eps,
    }


def _qformer_config(model: Blip2Base) -> dict[str, Any]:
    config = model.qformer.model.config.to_dict()
    kept = (
        "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
        "intermediate_size", "hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob",
        "max_position_embeddings", "initializer_range", "layer_norm_eps", "pad_token_id",
        "cross_attention_frequency", "encoder_hidden_size", "use_qformer_text_input",
    )  # fmt: skip
    return {key: config[key] for key in kept}
