"""A corpus of lines as blocks of tokens in one memory-mapped file.

Lines are tokenized with their special tokens and concatenated, and the whole is cut into blocks;
the rest at the very end is dropped, once. (The released code drops one for every thousand lines.)
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from lavis.common.errors import DataError, RecordError
from lavis.datasets.files.arrow import TABLES, is_saved, open_table, tables_in
from lavis.datasets.files.built import built_once, cache_folder, digest_of, file_identity
from lavis.datasets.files.folders import is_hidden, refuse_doubles
from lavis.datasets.files.formats import open_file

logger = logging.getLogger(__name__)

VERSION = 1  # of the written form
TEXTS = (".raw", ".tokens", ".txt")
_LINES = 1000  # tokenized at a time
_LOG_SECONDS = 10.0
_SPLITS = ("train", "valid", "test")  # "validation" begins like "valid"
Tokenize = Callable[[list[str]], Sequence[Sequence[int]]]


class TokenBlocks:
    """Blocks of `block_size` tokens in a file of little-endian uint32."""

    def __init__(self, path: Path, block_size: int) -> None:
        self.path, self.block_size = path, block_size
        self._count = path.stat().st_size // (4 * block_size)
        self._blocks: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_blocks": None}  # a memory map cannot travel

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> list[int]:
        """Return the tokens of a block."""
        if not 0 <= index < self._count:
            raise IndexError(f"block {index} of {self._count}")
        if self._blocks is None:
            shape = (self._count, self.block_size)
            self._blocks = np.memmap(self.path, dtype="<u4", mode="r", shape=shape)
        return self._blocks[index].tolist()


def token_blocks(
    files: Sequence[str],
    tokenizer: Any,
    block_size: int,
    *,
    text_key: str = "text",
    cache_dir: str | None = None,
) -> TokenBlocks:
    """Return the blocks of a corpus, written on first use; other processes wait for the first.

    The file's name is a hash of the tokenizer's whole state, the block size, and the name, size
    and change time of every source, so that none of them can change unnoticed.

    Args:
        files: text files of lines, tables, or JSON lines, in this order.
        tokenizer: of transformers.
        text_key: column of the lines, where files have columns.
        cache_dir: where the blocks are kept.

    Raises:
        DataError: no whole block, or a file that cannot be read.
    """
    parts = {
        "kind": "token blocks",
        "version": VERSION,
        "tokenizer": tokenizer_identity(tokenizer),
        "block_size": block_size,
        "text_key": text_key,
        "files": [file_identity(path) for path in files],
    }
    target = cache_folder(cache_dir) / f"{digest_of(parts)}.tokens"

    def build(temporary: Path) -> None:
        logger.info("writing the tokens of %s to %s, once", ", ".join(files[:3]), target)
        lines = (line for path in files for line in read_lines(path, text_key, cache_dir))
        write_blocks(temporary, lines, _tokenize_with(tokenizer), block_size)

    return TokenBlocks(built_once(target, build), block_size)


def write_blocks(path: Path, lines: Iterable[str], tokenize: Tokenize, block_size: int) -> None:
    """Write all whole blocks of the lines' tokens, uint32; raises `DataError` for none."""
    begin = shown = time.monotonic()
    written = 0
    with open(path, "wb") as file:
        lines = iter(lines)
        while batch := list(islice(lines, _LINES)):
            tokens = np.fromiter((t for ids in tokenize(batch) for t in ids), dtype="<u4")
            file.write(tokens.tobytes())
            written += len(tokens)
            if time.monotonic() - shown > _LOG_SECONDS:
                shown = time.monotonic()
                logger.info("%d tokens so far, %.3g/s", written, written / (shown - begin))
        blocks, rest = divmod(written, block_size)
        if not blocks:
            raise DataError(f"only {written} tokens, which fill no block of {block_size}")
        file.truncate(blocks * block_size * 4)
    logger.info("%d blocks of %d tokens; the last %d tokens are left out", blocks, block_size, rest)


def read_lines(path: str, text_key: str, cache_dir: str | None = None) -> Iterator[str]:
    """Yield the lines of a file as `datasets` gives them: blank ones as "", others with their end.

    Raises:
        DataError: it cannot be read, or has no such column.
    """
    name = path.lower()
    if name.endswith(TABLES):
        table = open_table(path, cache_dir=cache_dir)
        if text_key not in table.columns:
            raise DataError(f"{path}: no column '{text_key}' (found {', '.join(table.columns)})")
        for batch in table.batches:
            yield from (line or "" for line in batch.column(text_key).to_pylist())
    elif name.endswith(TEXTS):
        try:
            with open(path, encoding="utf-8-sig") as file:
                for line in file:
                    yield line if line.strip() else ""
        except (OSError, UnicodeError) as error:
            raise DataError(f"{path}: cannot be read: {error}") from None
    else:
        (records,) = open_file(path, cache_dir)
        for row in range(len(records)):
            try:
                value = records.read(row).get(text_key)
            except RecordError as error:
                raise DataError(f"{path}, row {row}: {error.reason}") from None
            yield value if isinstance(value, str) else ""


def find_corpus(path: str, split: str) -> list[str]:
    """Return the files of a corpus' split under a folder, sorted; a file is itself.

    Files with the split in their names are taken; where no file names a split, all are.

    Raises:
        DataError: there are none.
    """
    if os.path.isfile(path):
        return [path]
    for folder in (os.path.join(path, split), path):
        if is_saved(folder):
            return tables_in(folder)
    forms = (*TEXTS, *TABLES, ".jsonl", ".jsonl.gz", ".jsonl.zst")
    files = sorted(p for p in Path(path).rglob("*") if p.is_file() and not _is_hidden(p, path))
    texts = [p for p in files if p.name.lower().endswith(forms)]
    named = [p for p in texts if split[:5] in p.name.lower()]
    rest = [p for p in texts if not any(other in p.name.lower() for other in _SPLITS)]
    if not named and not rest:
        raise DataError(f"{path}: no text of the split '{split}'; it should hold wiki.{split}.raw")
    chosen = [str(p) for p in named or rest]
    refuse_doubles(chosen)
    if len(chosen) < len(files):
        others = sorted({p.name for p in files} - {os.path.basename(p) for p in chosen})
        logger.info(
            "%s: %d files of the split '%s' are read; %d others are passed over (%s)",
            *(path, len(chosen), split, len(files) - len(chosen), ", ".join(others[:3])),
        )
    return chosen


def _is_hidden(file: Path, root: str) -> bool:
    return any(is_hidden(part) for part in file.relative_to(root).parts)


def tokenizer_identity(tokenizer: Any) -> str:
    """Return a hash of all that a tokenizer's output depends on, whatever its name."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        state = backend.to_str()
    else:
        special = {k: str(v) for k, v in tokenizer.special_tokens_map.items()}
        vocabulary = sorted(tokenizer.get_vocab().items())
        state = json.dumps([type(tokenizer).__name__, special, vocabulary])
    probe = tokenizer("A b.", add_special_tokens=True)["input_ids"]
    text = json.dumps([state, list(probe)])
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _tokenize_with(tokenizer: Any) -> Tokenize:
    def tokenize(lines: list[str]) -> Sequence[Sequence[int]]:
        encoded = tokenizer(
            lines, add_special_tokens=True, return_attention_mask=False, verbose=False
        )
        return encoded["input_ids"]

    return tokenize
