"""Captions as tokens: the one place where training texts are tokenized, padded and masked.

Shapes: B texts, L tokens, R target positions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lavis.common.errors import ConfigError
from lavis.common.pretrained import check_vocabulary, load_tokenizer, padding_token

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lavis.tasks.base import LateFusionModel

Tokens = tuple[int, ...]
IGNORED = -100  # label of a token that is not predicted
MASKED, REPLACED = 0.8, 0.9  # of the predicted tokens 80 % are masked, 10 % replaced, 10 % stay


class CaptionTokenizer:
    """Turns captions into batches.

    Args:
        max_length: longer texts are cut at their end; may be lowered later.
        mlm_probability: share of tokens that a model which fills masks predicts.
    """

    def __init__(
        self, tokenizer: Any, max_length: int | None = None, *, mlm_probability: float = 0.2
    ) -> None:
        self.tokenizer, self.max_length = tokenizer, max_length
        self._probability = mlm_probability
        special = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
        self._special = [token for token in special if token is not None]

    @classmethod
    def load(
        cls, name: str, max_length: int | None = None, *, mlm_probability: float = 0.2
    ) -> CaptionTokenizer:
        """Load a tokenizer by Hugging Face id or folder; raises `ConfigError` if it is missing."""
        tokenizer = load_tokenizer(name, "run.tokenizer")
        return cls(tokenizer, max_length, mlm_probability=mlm_probability)

    def check_reader(self, model: LateFusionModel) -> None:
        """Raise `ConfigError` if the tokenizer is not that of the model that reads the texts."""
        check_vocabulary(self.tokenizer, model)

    def tokens_of_words(self, words: Sequence[str]) -> Tensor:
        """Return the sorted, distinct tokens of words inside a text.

        Raises:
            ConfigError: a word is more than one token.
        """
        import torch

        from lavis.tasks.questions.candidates import token_path

        paths = {word: token_path(self.tokenizer, word) for word in words}
        long = [word for word, path in paths.items() if len(path) != 1]
        if long:
            raise ConfigError(
                f"run.loss_vocabulary: '{long[0]}' is {len(paths[long[0]])} tokens of this "
                "tokenizer; name words of one token, or write seen"
            )
        return torch.tensor(sorted({path[0] for path in paths.values()}), dtype=torch.long)

    @property
    def pad(self) -> int:
        """A token for positions without one."""
        return padding_token(self.tokenizer)

    def tokens(self, samples: dict[str, Any]) -> list[Tokens]:
        """Return the tokens of a batch's texts: `token_ids` if the data set has them.

        A text without tokens becomes one padding token, which is never predicted.
        """
        token_ids = samples.get("token_ids")
        if token_ids is None:
            token_ids = self.encode(samples["text_input"])
        return [tuple(ids)[: self.max_length] or (self.pad,) for ids in token_ids]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of texts, start and end tokens as the model has them."""
        if not texts:
            return []
        cut = {"truncation": True, "max_length": self.max_length} if self.max_length else {}
        ids: list[list[int]] = self.tokenizer(list(texts), **cut).input_ids
        return ids

    def batch(self, tokens: Sequence[Tokens]) -> dict[str, Tensor]:
        """Return `input_ids`, `attention_mask`, `labels` `(B, L)`, padded at the right.

        Padding is never a target. For models that fill masks see `mask`.
        """
        import torch
        from torch.nn.utils.rnn import pad_sequence

        rows = [torch.tensor(ids, dtype=torch.long) for ids in tokens]
        ids = pad_sequence(rows, batch_first=True, padding_value=self.pad)
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        labels = ids.masked_fill(mask == 0, IGNORED)
        for row, own in enumerate(tokens):
            if own == (self.pad,):
                labels[row] = IGNORED
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    def mask(
        self, batch: dict[str, Tensor], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return a batch with tokens hidden, and labels for these only.

        Of all tokens but start, end and padding, `mlm_probability` are predicted: 80 % show the
        mask token, 10 % a random one, 10 % themselves. A text for which none was drawn gets one
        (released code could put it on padding or the end token).

        Args:
            generator: of the draws (None: torch's own).
        """
        import torch

        ids = batch["input_ids"]
        usable = batch["attention_mask"].bool() & ~torch.isin(ids, torch.tensor(self._special))
        draw = torch.rand(ids.shape, generator=generator)
        chosen = usable & (draw < self._probability)
        empty = usable.any(dim=1) & ~chosen.any(dim=1)
        smallest = torch.where(usable, draw, 2.0).argmin(dim=1)
        chosen[empty, smallest[empty]] = True
        kind = torch.rand(ids.shape, generator=generator)
        others = torch.randint(len(self.tokenizer), ids.shape, generator=generator)
        shown = torch.where(kind < MASKED, self.tokenizer.mask_token_id, others)
        return {
            **batch,
            "input_ids": torch.where(chosen & (kind < REPLACED), shown, ids),
            "labels": torch.where(chosen, ids, IGNORED),
        }

    def mask_alike(self, tokens: Sequence[Tokens], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Hide tokens of each text of a batch, the same ones at every evaluation."""
        import torch

        for row, own in enumerate(tokens):
            digest = hashlib.sha256(json.dumps(own).encode()).digest()
            draw = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            hidden = self.mask({n: v[row : row + 1, : len(own)] for n, v in batch.items()}, draw)
            batch["labels"][row] = IGNORED
            for name in ("input_ids", "labels"):
                batch[name][row, : len(own)] = hidden[name][0]
        return batch


def target_positions(batch: dict[str, Tensor], *, masked: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return target positions, the tokens predicted there, and which of them count; `(B, R)`."""
    import torch
    import torch.nn.functional as F

    ids, labels = batch["input_ids"], batch["labels"]
    if masked:
        chosen = labels != IGNORED
        most = max(1, int(chosen.sum(dim=1).max()))
        order = torch.argsort(~chosen, dim=1, stable=True)[:, :most]
        return order, labels.clamp(min=0).gather(1, order), chosen.gather(1, order)
    if ids.shape[1] == 1:
        ids, labels = F.pad(ids, (0, 1)), F.pad(labels, (0, 1), value=IGNORED)
    rows = torch.arange(ids.shape[1] - 1).expand(len(ids), -1)
    return rows, ids[:, 1:].contiguous(), labels[:, 1:] != IGNORED
