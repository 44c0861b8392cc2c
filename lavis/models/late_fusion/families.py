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


@dataclass(frozen=True)
class Family:
    """What a family does not share with the others.

    Attributes:
        projector_expansion: inner width of the projector over the language model's, as released.
        inner: name of the MLP's inner width in the config.
        merges: pictures may take the place of the start token (vLMIG's Gemma).
        positions: learnt position tables: path in the base model -> rows that hold no position.
        head: the masked language model's head; None for the output embedding alone.
        counts_from_padding: position ids start behind the padding id (RoBERTa), not at 0.
    """

    projector_expansion: float = 1.0
    inner: str = "intermediate_size"
    merges: bool = False
    positions: Mapping[str, int] | None = None
    head: str | None = None
    counts_from_padding: bool = False


_BERT = {"embeddings.position_embeddings": 0}
FAMILIES = {
    "gpt2": Family(4.0, inner="n_inner", positions={"wpe": 0}),
    "gemma": Family(merges=True),
    "opt": Family(inner="ffn_dim", positions={"decoder.embed_positions": 2}),
    "bert": Family(4.0, positions=_BERT, head="cls"),
    "roberta": Family(4.0, positions=_BERT, head="lm_head", counts_from_padding=True),
}
DEFAULT = Family()
# Model types whose numbers the tests compare with the library's; others are checked when built.
VERIFIED = (
    "bert", "gemma", "gemma2", "gemma3", "gemma3_text", "gpt2", "llama", "mistral", "opt", "phi",
    "phi3", "qwen2", "qwen3", "roberta",
)  # fmt: skip

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
    "encoder.layer.-1.output.LayerNorm",  # bert
)
# The last module of attention and of the MLP, whose output is added to the residual stream.
RESIDUAL_OUTPUTS = (
    ".o_proj", ".out_proj", ".c_proj", ".down_proj", ".fc2", ".output.dense", ".self_attn.dense",
    ".attention.dense", ".dense_4h_to_h",
)  # fmt: skip
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
    found: Any = module
    for part in path.split("."):
        if part.lstrip("-").isdigit():
            found = found[int(part)] if len(found) else None
        else:
            found = getattr(found, part, None)
        if found is None:
            return None
    return found


def final_norm(base: nn.Module) -> tuple[str, nn.Module] | None:
    """Return path and module of the last norm, or None where the table knows none."""
    for path in FINAL_NORMS:
        found = submodule(base, path)
        if isinstance(found, nn.Module) and getattr(found, "weight", None) is not None:
            return path, found
    return None


def scale_logits(logits: Tensor, config: Any) -> Tensor:
    """Apply what a family does to its head's output.

    Gemma 2's soft cap `c * tanh(x / c)`, Granite's divisor and Cohere's factor.
    """
    cap = getattr(config, "final_logit_softcapping", None)
    if cap:
        return cap * (logits / cap).tanh()
    if config.model_type.startswith("granite"):
        return logits / config.logits_scaling
    if config.model_type.startswith("cohere"):
        return logits * config.logit_scale
    return logits


def changes_logits(config: Any) -> bool:
    """Return whether logits are more than a linear map of the hidden state."""
    capped = getattr(config, "final_logit_softcapping", None)
    return bool(capped) or family_of(config).head is not None


def first_position(config: Any) -> int:
    """Return the position id of the first token."""
    return config.pad_token_id + 1 if family_of(config).counts_from_padding else 0


def last_position(base: nn.Module, config: Any) -> int | None:
    """Return how many positions a learnt table holds, or None where positions are unlimited."""
    for path, offset in (family_of(config).positions or {}).items():
        table = submodule(base, path)
        if isinstance(table, nn.Embedding):
            return table.num_embeddings - offset - first_position(config)
    return None
