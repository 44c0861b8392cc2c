"""Configs of tiny models of any family: sizes by the names that configs give them.

A config is its class's default with every known size made small; lists and patterns that depend on
the depth are left to the class. `OVERRIDES` holds what a family needs beyond that.
"""

from __future__ import annotations

from typing import Any

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING, AutoConfig

VOCABULARY = 67
LENGTH = 64
KINDS = {"causal": MODEL_FOR_CAUSAL_LM_MAPPING, "masked": MODEL_FOR_MASKED_LM_MAPPING}

_DEPTH = (
    "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers "
    "num_encoder_layers num_decoder_layers n_input_layers n_recurrent_layers n_output_layers "
    "num_layers_per_stack num_blocks"
)
_WIDTH = (
    "hidden_size d_model n_embd dim emb_dim embedding_size input_embedding_size "
    "output_embedding_size word_embed_proj_dim embedding_dim pooler_hidden_size "
    "prediction_head_size mamba_d_ssm lru_width mamba_intermediate_size"
)
_INNER = (
    "intermediate_size ffn_dim encoder_ffn_dim decoder_ffn_dim n_inner d_inner dff dim_ff "
    "hidden_dim ffn_hidden_size intermediate_size_mlp dense_intermediate_size "
    "shared_intermediate_size"
)
_EXPERT = (
    "moe_intermediate_size shared_expert_intermediate_size shared_experts_intermediate_size "
    "expert_ffn_hidden_size moe_shared_expert_intermediate_size"
)
_HEADS = (
    "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads "
    "num_encoder_attention_heads num_decoder_attention_heads attention_heads "
    "swa_num_attention_heads num_query_groups linear_num_value_heads linear_num_heads "
    "linear_num_key_heads index_n_heads"
)
_GROUPS = "num_key_value_heads num_kv_heads swa_num_key_value_heads"
_EIGHT = (
    "head_dim qk_rope_head_dim qk_nope_head_dim v_head_dim rotary_dim swa_head_dim index_head_dim "
    "linear_key_head_dim linear_value_head_dim linear_head_dim kv_channels d_head dim_head "
    "attention_head_dim mamba_headdim mamba_d_head mamba_head_dim query_pre_attn_scalar d_rel"
)
_FOUR = (
    "num_experts n_routed_experts num_local_experts moe_num_experts "
    "mamba_n_heads mamba_num_heads n_mamba_heads"
)
_LENGTHS = (
    "max_position_embeddings n_positions n_ctx max_seq_len context_length max_target_positions "
    "segment_means_seq_len original_max_position_embeddings model_max_length"
)
_SIXTEEN = (
    "q_lora_rank kv_lora_rank o_lora_rank mamba_d_state state_size ssm_state_size time_step_rank "
    "mamba_dt_rank laurel_rank hidden_size_per_layer_input router_hidden_size adapter_rank "
    "gated_norm_rank loop_gate_rank hc_lowrank ple_embed_dim entity_emb_size chunk_size "
    "mamba_chunk_size index_topk attention_window sliding_window sliding_window_size "
    "attention_chunk_size window_size attention_window_size local_attention rel_extent "
    "chunk_size num_latents d_latents block_size true_hidden_size intra_bottleneck_size"
)
_TWO = (
    "num_experts_per_tok num_experts_per_token moe_topk moe_k num_shared_experts n_shared_experts "
    "moe_num_shared_experts hc_mult hc_count o_groups expand mamba_expand"
)
SIZES: dict[str, int] = {
    **dict.fromkeys(_DEPTH.split(), 2),
    **dict.fromkeys(_WIDTH.split(), 32),
    **dict.fromkeys(_INNER.split(), 48),
    **dict.fromkeys(_EXPERT.split(), 16),
    **dict.fromkeys(_HEADS.split(), 4),
    **dict.fromkeys(_GROUPS.split(), 2),
    **dict.fromkeys(_EIGHT.split(), 8),
    **dict.fromkeys(_FOUR.split(), 4),
    **dict.fromkeys(_LENGTHS.split(), LENGTH),
    **dict.fromkeys(_SIXTEEN.split(), 16),
    **dict.fromkeys(_TWO.split(), 2),
    "qk_head_dim": 16,
    "vocab_size": VOCABULARY,
    "unpadded_vocab_size": VOCABULARY,
    "vocab_size_per_layer_input": VOCABULARY,
    "ngram_vocab_size_base": VOCABULARY,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "image_size": 28,
    "patch_size": 14,
    "n_group": 2,
    "num_expert_group": 2,
    "topk_group": 1,
    "n_groups": 1,
    "mamba_n_groups": 1,
    "mamba_ngroups": 1,
    "entity_vocab_size": 11,
}
# model type -> what its text config needs beyond the sizes above; None: left to the class
_MLA = {"num_key_value_heads": 4}  # keys are made of one latent vector for all heads
_HYBRID = {"layer_types": ["linear_attention", "full_attention"]}
_WINDOWED = ["sliding_attention", "full_attention"]
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_SELECTIVE = {"mamba_n_heads": 4, "mamba_d_head": 16}
OVERRIDES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        (
            "axk1 axk2 deepseek_v2 deepseek_v3 deepseek_v32 glm4_moe_lite glm_moe_dsa "
            "longcat_flash minicpm3 sarvam_mla youtu esmc"
        ).split(),
        _MLA,
    ),
    **dict.fromkeys("qwen3_5_moe_text qwen3_5_text qwen3_next".split(), _HYBRID),
    "bailing_hybrid": {**_HYBRID, **_MLA},
    "kimi_linear": {**_HYBRID, **_MLA},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "bamba": {**_SELECTIVE, "attn_layer_indices": [1]},
    "granitemoehybrid": {**_SELECTIVE, **_HYBRID},
    "falcon_h1": {**_SELECTIVE, "mamba_d_ssm": 64},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "nemotron_h": {"layers_block_type": ["linear_attention", "full_attention", "moe"]},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"], "num_key_value_heads": 1},
    "zamba": {
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
        "num_hidden_layers": 3,
        "attention_head_dim": 16,
    },
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
        "num_hidden_layers": 3,
        "attention_head_dim": 16,
        "mamba_headdim": 16,
    },
    "rwkv": {"attention_hidden_size": 32},
    "zaya": {"num_experts_per_tok": 1},
    "dory": {
        "num_hidden_layers": 3,
        "n_input_layers": 1,
        "n_recurrent_layers": 1,
        "n_output_layers": 1,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "hy_v3": {"initializer_range": 0.1},  # by default so small that a norm's epsilon counts
    "hrm_text": {"num_hidden_layers": 8, "num_layers_per_stack": 1},
    "roc_bert": {
        "shape_vocab_size": 11,
        "shape_embed_dim": 8,
        "pronunciation_vocab_size": 11,
        "pronunciation_embed_dim": 8,
    },
    "esm": {"vocab_size": VOCABULARY, "pad_token_id": 0, "mask_token_id": 3},
    "dots3_note_text": _MLA,
    "gemma3n_text": {"num_kv_shared_layers": 0, "layer_types": _WINDOWED},
    "gemma4_assistant": {"hidden_size_per_layer_input": 0},
    "deepseek_v2": {**_MLA, "topk_method": "greedy", "n_group": 1, "num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "qwen4_exp_text": {
        **_HYBRID,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
    },
    "dbrx": {
        "attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8},
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "lfm3": {"layer_types": ["conv", "full_attention"]},
    "neomme": {"head_dim": 16},
    "albert": {"embedding_size": 16},  # narrower than the hidden states, as all released ones
    "rembert": {"input_embedding_size": 16},
    "mpnet": {"pad_token_id": 1},
    "xmod": {"default_language": "en_XX"},
    "reformer": {"axial_pos_shape": [8, 8], "axial_pos_embds_dim": [16, 16]},
    "cohere_compass_text": {
        "layer_types": _WINDOWED,
        "rope_parameters": {kind: _ROPE for kind in _WINDOWED},
    },
}


def model_types(kind: str) -> list[str]:
    """Return the model types of every class that is mapped, `causal` or `masked`, in order."""
    return list(dict.fromkeys(config.model_type for config in KINDS[kind]))


def tiny_config(kind: str, model_type: str) -> Any:
    """Return a config of a tiny model; an encoder that may also predict is told so by `is_decoder`.

    Raises:
        Exception: whatever the class says of sizes that do not go together.
    """
    default = AutoConfig.for_model(model_type)
    sizes = _shrunk(default, model_type)
    if kind == "causal" and default.to_dict().get("is_decoder") is False:
        sizes["is_decoder"] = True
    return type(default)(**sizes)


def _shrunk(default: Any, model_type: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    parts = getattr(default, "sub_configs", {}) or {}
    for name, value in default.to_dict().items():
        part: Any = getattr(default, name) if name in parts else None
        if hasattr(part, "to_dict"):
            found[name] = {"model_type": part.model_type, **_shrunk(part, part.model_type)}
        elif name in SIZES and (value is None or isinstance(value, int | list | float)):
            if value is None and name not in ("head_dim", "n_inner", "num_key_value_heads"):
                continue
            found[name] = SIZES[name]
    return {**found, **OVERRIDES.get(model_type, {})}
