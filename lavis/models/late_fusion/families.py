"""What differs between families of language models: the one table, and how it is read.

Everything else is the same code for every family: the text runs through `AutoModelForCausalLM` (or
`AutoModelForMaskedLM`), the block is `AutoModel.from_config` of the same config with one layer, fed
with embeddings, and the logits are the language model's own head's.

Released code and ours agree on what a visible text row attends to and on its logits. Ours counts
positions over visible rows only, so that padding on either side changes nothing; released code
counts padding in gpt2, bert and LaMI's Gemma, which differs for padding on the left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from lavis.common.errors import ConfigError


@dataclass(frozen=True)
class Family:
    """What a family does not share with the others.

    Attributes:
        projector_expansion: inner width of the projector over the language model's, as released.
        inner: name of the MLP's inner width in the config.
        merges: images may take the place of the start token (vLMIG's Gemma).
        head: the masked language model's head; None for the output embedding alone, and where the
            check of a new family finds another one.
        attention_layer: what the config of one layer says, so that it is plain attention over all
            tokens, in families whose layers differ and that have no `layer_types` to set.
        counts_from_padding: position ids start behind the padding id (RoBERTa), not at 0.
    """

    projector_expansion: float = 1.0
    inner: str = "intermediate_size"
    merges: bool = False
    head: str | None = None
    counts_from_padding: bool = False
    attention_layer: Mapping[str, Any] | None = None


_ROBERTA = Family(4.0, head="lm_head", counts_from_padding=True)
FAMILIES = {
    "gpt2": Family(4.0, inner="n_inner"),
    "gemma": Family(merges=True),
    "opt": Family(inner="ffn_dim"),
    "bert": Family(4.0, head="cls"),
    **dict.fromkeys(
        (
            "roberta", "camembert", "data2vec-text", "roberta-prelayernorm", "xlm-roberta",
            "xlm-roberta-xl", "xmod",
        ),
        _ROBERTA,
    ),
    "bamba": Family(attention_layer={"attn_layer_indices": [0]}),
    "gpt_neo": Family(
        attention_layer={"attention_types": [[["global"], 1]], "attention_layers": ["global"]}
    ),
    "jamba": Family(attention_layer={"attn_layer_period": 1, "attn_layer_offset": 0}),
    "recurrent_gemma": Family(attention_layer={"block_types": ["attention"]}),
}  # fmt: skip
DEFAULT = Family()
# Model types whose numbers the tests compare with the library's; others are checked when built.
VERIFIED = (
    "bert", "gemma", "gemma2", "gemma3", "gemma3_text", "gpt2", "llama", "mistral", "opt", "phi",
    "phi3", "qwen2", "qwen3", "roberta",
)  # fmt: skip

# Heads of other encoders, as paths of what hidden states pass in turn; a new family's is chosen by
# comparing its logits with the library's.
HEADS: tuple[tuple[str, ...], ...] = (
    ("cls",),
    ("lm_head",),
    ("predictions",),
    ("generator_predictions", "generator_lm_head"),
    ("head", "decoder"),
    ("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),
)
# Learnt tables of positions, by their names; a table's `offset` says how many rows hold none.
POSITION_TABLES = ("wpe", "position_embeddings", "embed_positions", "positions_embed")
# Kinds of layers that look at keys and values of all tokens or the nearest ones, and at no more.
ATTENTION = ("full_attention", "sliding_attention", "chunked_attention")

# Families whose layer cannot be shown images, and why.
_DISTANCES = (
    "its attention counts the distance between rows for itself, so that patches cannot be put in "
    "front of a text as rows"
)
_TEXT_ONLY = {
    **dict.fromkeys(("bloom", "deberta", "deberta-v2", "mpnet", "mpt"), _DISTANCES),
    **dict.fromkeys(
        ("flaubert", "layoutlm", "reformer", "xlm", "xlnet"),
        "its attention takes no mask that says of each row which others it sees",
    ),
    **dict.fromkeys(
        ("gemma4", "gemma4_text"), "its layers read the words again beside their hidden states"
    ),
    "hrm_text": "its layers run several times over and cannot be had one by one",
    "longformer": "its attention is cut into windows of the text",
    "longcat_flash": "its layer holds two attentions, and shows its keys and values as of one",
}

# Where the last norm before the head is, in the base model and in a block of one layer.
# Families in whose block every weight gets a gradient at each step, which a test shows of each.
WHOLE_BLOCKS = frozenset(
    "bert gemma gemma2 gemma3_text gpt2 llama mistral opt phi phi3 qwen2 qwen3 roberta".split()
)
FINAL_NORMS = (
    "norm",  # llama, gemma, qwen, mistral, phi-3
    "ln_f",  # gpt2
    "final_layernorm",  # phi
    "decoder.final_layer_norm",  # opt
    "final_layer_norm",  # gpt-neox
    "embedding_norm",  # lfm2
    "norm_f",  # mamba's and its hybrids
    "layer_norm",  # biogpt
    "encoder.layer.-1.output.LayerNorm",  # bert
)
# The last module of attention and of the MLP, whose output is added to the residual stream.
RESIDUAL_OUTPUTS = (
    ".o_proj", ".out_proj", ".c_proj", ".down_proj", ".fc2", ".output.dense", ".self_attn.dense",
    ".attention.dense", ".self_attention.dense", ".dense_4h_to_h", ".fc_out", ".output_linear",
    ".feed_forward.w2", ".experts.w2", ".mlp.w2", ".ffn.output",
)  # fmt: skip
# The same of mixtures of experts that keep one weight of all experts, by the weight's name.
EXPERT_OUTPUTS = (".down_proj", ".down_proj_bias", ".w2", ".output_linear")
# Norms of attention's and the MLP's output (gemma 2 and 3, olmo 2; glm 4), in layers with the last.
POST_NORMS = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),
    ("post_self_attn_layernorm", "post_mlp_layernorm"),
)
# Token tables that LaMI saves with the block, and a pooler: never used.
UNUSED = (
    "fusion_layer.wte.", "fusion_layer.embed_tokens.", "fusion_layer.decoder.embed_tokens.",
    "fusion_layer.embeddings.word_embeddings.", "fusion_layer.pooler.",
)  # fmt: skip


def family_of(config: Any) -> Family:
    """Return the table's entry for a text config, or the one that most families share."""
    return FAMILIES.get(config.model_type, DEFAULT)


def is_masked_lm(config: Any) -> bool:
    """Return whether the model fills masks (bert) rather than predicting the next token."""
    decoder = getattr(config, "is_decoder", False) or getattr(config, "is_encoder_decoder", False)
    return config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not decoder


def input_factor(llm: nn.Module) -> float:
    """Return what Gemma's word vectors are multiplied with: the square root of the width, else 1.

    Released code does the same to all that enters the block. Older libraries scale in the model's
    own forward; their word tables have no factor.
    """
    table = llm.get_input_embeddings()  # type: ignore[operator]
    scale: Any = getattr(table, "scalar_embed_scale", None)
    if scale is None:
        scale = getattr(table, "embed_scale", 1.0)
    return float(scale)


def submodule(module: nn.Module, path: str) -> nn.Module | None:
    """Return the module at a dotted path, where -1 is the last of a list, or None."""
    current: Any = module
    for part in path.split("."):
        if part.lstrip("-").isdigit():
            current = current[int(part)] if len(current) else None
        else:
            current = getattr(current, part, None)
        if current is None:
            return None
    return current


def final_norm(base: nn.Module) -> tuple[str, nn.Module] | None:
    """Return path and module of the last norm, or None where the table knows none."""
    for path in FINAL_NORMS:
        norm = submodule(base, path)
        if isinstance(norm, nn.Module) and getattr(norm, "weight", None) is not None:
            return path, norm
    return None


def scale_logits(logits: Tensor, config: Any) -> Tensor:
    """Apply Gemma 2's soft cap `c * tanh(x / c)`, Granite's divisor or Cohere's factor."""
    cap = getattr(config, "final_logit_softcapping", None)
    if cap:
        return cap * (logits / cap).tanh()
    if config.model_type.startswith("granite"):
        return logits / config.logits_scaling
    if config.model_type.startswith("cohere") and getattr(config, "logit_scale", None):
        return logits * config.logit_scale
    return logits


def first_position(config: Any) -> int:
    """Return the position id of the first token."""
    return config.pad_token_id + 1 if family_of(config).counts_from_padding else 0


def last_position(base: nn.Module, config: Any) -> int | None:
    """Return how many positions a learnt table holds, or None where positions are unlimited."""
    for name, table in base.named_modules():
        if name.rpartition(".")[2] in POSITION_TABLES and isinstance(table, nn.Embedding):
            return table.num_embeddings - getattr(table, "offset", 0) - first_position(config)
    return None


def has_both_halves(config: Any) -> bool:
    """Return whether a family is an encoder and a decoder (bart), of which a half was taken."""
    sizes = ("encoder_layers", "decoder_layers"), ("num_encoder_layers", "num_decoder_layers")
    return bool(getattr(config, "is_encoder_decoder", False)) or any(
        hasattr(config, one) and hasattr(config, other) for one, other in sizes
    )


def check_family(config: Any) -> None:
    """Raise `ConfigError` for a family that is known not to work, with the reason."""
    kind = config.model_type
    if has_both_halves(config):
        raise ConfigError(
            f"model.llm: a '{kind}' is an encoder with a decoder, and late fusion adds a layer to "
            "a model that is one of them"
        )
    if kind in _TEXT_ONLY:
        raise ConfigError(f"model.llm: a '{kind}' cannot be used: {_TEXT_ONLY[kind]}")


def reason_of(error: Exception) -> str:
    """Return a library's error message on one line."""
    lines = str(error).strip().splitlines()
    text = lines[0].strip() if lines else ""
    return text if isinstance(error, ConfigError) else f"{type(error).__name__}: {text}"[:200]
