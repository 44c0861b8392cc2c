"""Hidden states of texts from the frozen language model, computed once and kept on disk.

Shapes: B texts, L tokens, H width of a hidden state.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from lavis.common.errors import ConfigError, DataError
from lavis.common.logger import Progress
from lavis.common.storage.arrays import ArrayShards, array_key

if TYPE_CHECKING:
    from lavis.common.dist import World
    from lavis.tasks.base import LateFusionModel

logger = logging.getLogger(__name__)

WINDOW = 32768  # token lists that are looked at together: told apart, sorted by length, encoded
_BITS = {torch.float32: np.float32, torch.float16: np.float16, torch.bfloat16: np.uint16}
TokenList = Sequence[int]


class TextStates:
    """States by tokens; picklable, so that loader processes read them.

    Padding and neighbours in a batch change states by rounding only, so a text's states are kept
    whatever it was encoded with.

    Args:
        folder: shared by models, each of which has its own folder there.
        fingerprint: of all that states depend on: the language model, and its precision.
        width: H.
        dtype: of stored states: float32, or the language model's own half precision.

    Raises:
        ConfigError: states cannot be stored in this type.
    """

    def __init__(
        self, folder: Path, fingerprint: str, width: int, dtype: torch.dtype = torch.float32
    ) -> None:
        if dtype not in _BITS:
            raise ConfigError(f"text states of type {dtype}; use fp32, bf16 or fp16")
        self.dtype, self.width = dtype, width
        name = hashlib.blake2b(f"{fingerprint} {dtype}".encode(), digest_size=10).hexdigest()
        self._shards = ArrayShards(
            Path(folder) / f"text_states-{name}",
            width=width,
            dtype=_BITS[dtype],
            fingerprint=[fingerprint, str(dtype)],
        )

    @classmethod
    def of(cls, model: LateFusionModel, folder: Path) -> TextStates:
        """Return a model's states, in its own precision, for the caller's device and autocast."""
        hidden = model.encode_text(torch.zeros(1, 1, dtype=torch.long)).hidden
        device = model.device.type
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        fingerprint = f"{model.text_fingerprint()} {device} {autocast}"
        return cls(folder, fingerprint, hidden.shape[-1], hidden.dtype)

    def __len__(self) -> int:
        """Return the number of texts that have states."""
        return len(self._shards)

    def fill(
        self,
        model: LateFusionModel,
        token_lists: Iterable[TokenList],
        *,
        world: World,
        batch_size: int,
    ) -> None:
        """Encode texts without states; each process its share; all of them call this together.

        Equal texts are encoded once. Finished batches outlive a kill.

        Args:
            token_lists: the same ones in every process; read once, a window at a time.
            batch_size: texts that are encoded together, of about one length.
        """
        shards = self._shards
        total = len(token_lists) if isinstance(token_lists, Sized) else 0
        progress = Progress(total, "states of texts", unit="texts", shown=world.is_main)
        shards.refresh()
        encoded = 0
        for window in _windows(token_lists):
            missing = self._missing(window, world)
            for start in range(0, len(missing), batch_size):
                part = missing[start : start + batch_size]
                self._encode(model, part)
                encoded += len(part)
                world.beat(f"states of texts: {encoded} encoded")
            if missing:
                shards.refresh()  # later windows may hold the same texts
            progress.total = max(progress.total, progress.done + len(window))
            progress.add(len(window))
        shards.close()
        progress.close()
        world.barrier("states of texts")
        shards.refresh()
        if encoded:
            logger.info("states of %d texts, %d of this process's are new", len(shards), encoded)

    def _missing(self, window: list[TokenList], world: World) -> list[tuple[bytes, TokenList]]:
        """Return this process's texts of a window without states, the longest first."""
        distinct = {_key(tokens): tokens for tokens in window if len(tokens)}
        keys = list(distinct)
        known = self._shards.has(keys)
        mine = [
            (key, distinct[key])
            for key, there in zip(keys, known.tolist(), strict=True)
            if not there and int.from_bytes(key[:8], "big") % world.size == world.rank
        ]
        return sorted(mine, key=lambda pair: (-len(pair[1]), pair[0]))

    def _encode(self, model: LateFusionModel, texts: list[tuple[bytes, TokenList]]) -> None:
        ids, mask = _padded([tokens for _, tokens in texts])
        hidden = model.encode_text(ids, mask).hidden
        states = _bits(hidden.to(self.dtype).cpu())
        self._shards.put(
            (key, states[row, : len(tokens)]) for row, (key, tokens) in enumerate(texts)
        )

    def get(self, token_ids: TokenList) -> Tensor | None:
        """Return the states of a text, `(L, H)`, or None if it was not encoded."""
        if not len(token_ids):
            return torch.zeros(0, self.width, dtype=self.dtype)
        states = self._shards.get(_key(token_ids))
        if states is None:
            return None
        return torch.from_numpy(np.array(states)).view(self.dtype)

    def batch(
        self,
        token_lists: Sequence[TokenList],
        side: Literal["right", "left"] = "right",
        length: int | None = None,
    ) -> Tensor:
        """Return the states of texts, `(B, L, H)`, zero at padding.

        Args:
            side: of the padding.
            length: L (None: the longest text's).

        Raises:
            DataError: a text was not encoded, or is longer than `length`.
        """
        longest = max((len(tokens) for tokens in token_lists), default=0)
        if length is None:
            length = longest
        if longest > length:
            raise DataError(f"a text of {longest} tokens does not fit into {length} rows")
        whole = torch.zeros(len(token_lists), length, self.width, dtype=self.dtype)
        rows = _bits(whole)  # the same memory
        for row, tokens in zip(rows, token_lists, strict=True):
            if not len(tokens):
                continue
            states = self._shards.get(_key(tokens))
            if states is None:
                raise DataError(f"a text of {len(tokens)} tokens has no states; fill them first")
            start = 0 if side == "right" else length - len(tokens)
            row[start : start + len(tokens)] = states
        return whole


def _key(tokens: TokenList) -> bytes:
    return array_key(np.asarray(tokens, dtype="<i8").tobytes())


def _windows(token_lists: Iterable[TokenList]) -> Iterator[list[TokenList]]:
    lists = iter(token_lists)
    while window := list(islice(lists, WINDOW)):
        yield window


def _padded(texts: Sequence[TokenList]) -> tuple[Tensor, Tensor]:
    """Return ids and mask `(B, L)`, padded at the right with a token that every model knows."""
    longest = max(len(tokens) for tokens in texts)
    ids = torch.zeros(len(texts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(texts):
        ids[row, : len(tokens)] = torch.as_tensor(tokens, dtype=torch.long)
        mask[row, : len(tokens)] = 1
    return ids, mask


def _bits(tensor: Tensor) -> np.ndarray:
    """Return the tensor's memory as numpy, which has no bfloat16."""
    return tensor.view(torch.uint16 if tensor.dtype == torch.bfloat16 else tensor.dtype).numpy()
