"""Q-Former of transformers' modules; an image's keys and values are made once for its texts.

Shapes: N texts, P images, Q queries, L text tokens, S = Q + L, T image tokens of width D.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import Blip2QFormerConfig, Blip2QFormerModel
from transformers.models.bert.tokenization_bert import BertTokenizer, load_vocab
from transformers.models.blip_2.modeling_blip_2 import Blip2QFormerAttention, Blip2TextEmbeddings

from lavis.common.config.fields import CONFIG_ROOT
from lavis.common.errors import ConfigError
from lavis.common.storage.foreign import foreign_kind_of
from lavis.models.blip2.config import QFormerConfig

VOCABULARY = CONFIG_ROOT / "tokenizers" / "bert-base-uncased" / "vocab.txt"
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")

Groups = tuple[tuple[int, int], ...]  # runs of rows: (images, texts of each)


def build_tokenizer(config: QFormerConfig) -> BertTokenizer:
    """Return the lower-casing word-piece tokenizer with `[DEC]` added as start of a caption."""
    path = Path(config.vocab).expanduser() if config.vocab else VOCABULARY
    kind = foreign_kind_of(path)
    if kind is not None:
        raise ConfigError(f"model.qformer.vocab: {path} is {kind}")
    vocabulary = load_vocab(str(path))
    for token in SPECIAL_TOKENS:
        if token not in vocabulary:
            raise ConfigError(f"model.qformer.vocab: {path} lacks the token {token}")
    if vocabulary["[PAD]"] != 0:
        raise ConfigError(f"model.qformer.vocab: [PAD] must be the first line of {path}")
    mask = "[MASK]" if "[MASK]" in vocabulary else None  # the library would add a row for it
    tokenizer = BertTokenizer(
        vocab=dict(vocabulary),
        do_lower_case=True,
        mask_token=mask,  # type: ignore[arg-type]  # annotated as str; None is none
    )
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    if config.vocab_size is not None and config.vocab_size < len(tokenizer):
        raise ConfigError(
            f"model.qformer.vocab_size is {config.vocab_size}, but the vocabulary has "
            f"{len(tokenizer)} tokens with [DEC]; use at least that"
        )
    return tokenizer


@dataclass(frozen=True)
class TextPlan:
    """Order in which texts go through the Q-Former, so that an image's texts lie side by side.

    Attributes:
        texts: text rows in that order.
        images: image rows in that order, those with no text left out.
        groups: how many images in a row have how many texts each.
    """

    texts: tuple[int, ...]
    images: tuple[int, ...]
    groups: Groups


def plan_texts(image_index: list[int], max_texts: int) -> list[TextPlan]:
    """Split texts into passes of at most `max_texts`, images with equally many texts together.

    Args:
        image_index: image row of every text.
        max_texts: an image with more texts than this takes part in several passes.
    """
    rows: dict[int, list[int]] = {}
    for text, image in enumerate(image_index):
        rows.setdefault(image, []).append(text)
    pieces = [
        (image, texts[start : start + max_texts])
        for image, texts in rows.items()
        for start in range(0, len(texts), max_texts)
    ]
    pieces.sort(key=lambda piece: len(piece[1]))  # stable: keeps the order of images
    passes: list[list[tuple[int, list[int]]]] = [[]]
    used = 0
    for piece in pieces:
        if used + len(piece[1]) > max_texts:
            passes.append([])
            used = 0
        passes[-1].append(piece)
        used += len(piece[1])
    return [_text_plan(pieces) for pieces in passes if pieces]


def _text_plan(pieces: list[tuple[int, list[int]]]) -> TextPlan:
    groups: list[tuple[int, int]] = []
    for _, texts in pieces:
        if groups and groups[-1][1] == len(texts):
            groups[-1] = (groups[-1][0] + 1, len(texts))
        else:
            groups.append((1, len(texts)))
    order = tuple(text for _, texts in pieces for text in texts)
    return TextPlan(order, tuple(image for image, _ in pieces), tuple(groups))


class ImageCrossAttention(Blip2QFormerAttention):
    """Cross-attention in which all texts of an image share its keys and values.

    Rows of cross-attention do not see each other, so the queries of an image's n texts can stand
    side by side as n * Q queries of one row: the same numbers, keys and values computed once.
    """

    def forward(  # type: ignore[override]
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        *,
        image_groups: Groups | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Attend from `(N, Q, d)` to `encoder_hidden_states` `(P, T, D)`; returns `(N, Q, d)`."""
        assert encoder_hidden_states is not None
        rows = len(hidden_states)
        groups = image_groups or ((len(encoder_hidden_states), 1),)
        assert sum(images * texts for images, texts in groups) == rows
        outputs = []
        text_start = image_start = 0
        for images, texts in groups:
            queries = hidden_states[text_start : text_start + images * texts]
            tokens = encoder_hidden_states[image_start : image_start + images]
            merged = queries.reshape(images, texts * queries.shape[1], -1)  # (p, n * Q, d)
            output = super().forward(merged, encoder_hidden_states=tokens, **kwargs)
            outputs.append(output.reshape(queries.shape))
            text_start += images * texts
            image_start += images
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


class QFormer(nn.Module):
    """Word and position embeddings, and the layers of `Blip2QFormerModel`, run one by one.

    Running the layers here gives the masks as they are (no look at their values, which would wait
    for the device) and, where only query outputs are wanted, skips the last layer's text half.
    """

    def __init__(
        self,
        config: QFormerConfig,
        *,
        num_query_token: int,
        cross_attention_freq: int,
        image_width: int,
        vocab_size: int,
        reads_text: bool = True,
        use_grad_checkpoint: bool = False,
    ) -> None:
        """Build it with random weights; without `reads_text` for queries only, no text half."""
        super().__init__()
        library_config = Blip2QFormerConfig(
            vocab_size=vocab_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            intermediate_size=config.intermediate_size,
            hidden_dropout_prob=config.hidden_dropout_prob,
            attention_probs_dropout_prob=config.attention_probs_dropout_prob,
            max_position_embeddings=config.max_position_embeddings,
            initializer_range=config.initializer_range,
            layer_norm_eps=config.layer_norm_eps,
            cross_attention_frequency=cross_attention_freq,
            encoder_hidden_size=image_width,
            use_qformer_text_input=reads_text,
        )
        self.num_query_token = num_query_token
        self.use_grad_checkpoint = use_grad_checkpoint
        if reads_text:
            self.embeddings = Blip2TextEmbeddings(library_config)
        self.model = Blip2QFormerModel._from_config(library_config, attn_implementation="sdpa")
        for layer in self.model.encoder.layer:
            if layer.has_cross_attention:
                shared = ImageCrossAttention(self.model.config, is_cross_attention=True)
                shared.load_state_dict(layer.crossattention.state_dict())
                layer.crossattention = shared
        if not reads_text:
            return
        for table in (self.embeddings.word_embeddings, self.embeddings.position_embeddings):
            nn.init.normal_(table.weight, std=config.initializer_range)
        with torch.no_grad():
            self.embeddings.word_embeddings.weight[0].zero_()  # [PAD]

    def embed(self, query_tokens: Tensor | None, input_ids: Tensor | None) -> Tensor:
        """Return `[queries ; words + positions]` `(N, S, d)`, before the layer norm.

        Args:
            query_tokens: `(1 or N, Q, d)`.
            input_ids: `(N, L)`.
        """
        if query_tokens is not None and input_ids is not None:
            query_tokens = query_tokens.expand(len(input_ids), -1, -1)
        return self.embeddings(input_ids=input_ids, query_embeds=query_tokens)

    def forward(
        self,
        embeds: Tensor,
        mask: Tensor | None = None,
        *,
        query_length: int,
        image_embeds: Tensor | None = None,
        groups: Groups | None = None,
        queries_only: bool = False,
    ) -> Tensor:
        """Run the layers.

        Args:
            embeds: `(N, S, d)` from `embed`, the first `query_length` are queries.
            mask: bool, broadcast to `(N, heads, S, S)`, True where a key is seen; None: all are.
            image_embeds: `(P, T, D)`; needed where there are queries.
            groups: see `TextPlan`; None: text i belongs to image i.
            queries_only: return the query outputs only, and compute no more than they need.

        Returns:
            `(N, S, d)`, or `(N, Q, d)` with `queries_only`.
        """
        hidden = self.model.dropout(self.model.layernorm(embeds))
        if image_embeds is not None:
            image_embeds = image_embeds.to(hidden.dtype)
        layers = list(self.model.encoder.layer)
        # The trimmed layer leaves its text weights without gradients, which DDP would wait for.
        trim = queries_only and not torch.is_grad_enabled()
        last = layers.pop() if trim else None
        recompute = self.use_grad_checkpoint and self.training and torch.is_grad_enabled()
        for layer in layers:
            run = partial(layer, query_length=query_length, image_groups=groups)
            if recompute:
                hidden = checkpoint(run, hidden, mask, image_embeds, use_reentrant=False)
            else:
                hidden = run(hidden, mask, image_embeds)
        if last is None:
            return hidden[:, :query_length] if queries_only else hidden
        queries = last.attention(
            hidden[:, :query_length], encoder_hidden_states=hidden, encoder_attention_mask=mask
        )
        if last.has_cross_attention:
            queries = last.crossattention(
                queries, encoder_hidden_states=image_embeds, image_groups=groups
            )
        return last.feed_forward_chunk_query(queries)
