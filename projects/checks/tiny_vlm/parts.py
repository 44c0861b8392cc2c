"""Parts of tiny vision-language models: a tokenizer made by hand, chat templates, sizes."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

WORDS = (
    "Yes yes YES No no NO Question Answer Rationale Region Is Does the a is not image figure show "
    "and it correct what colour cat dog red blue left right of A B C D Please or answer in this"
).split()
BASE = ("<pad>", "<s>", "</s>", "<unk>")


def make_tokenizer(
    specials: tuple[str, ...] = (), *, bos: bool = False, words: Iterable[str] = WORDS, **named: str
) -> Any:
    """Return a byte-level tokenizer that knows some words, alone and behind a blank.

    Args:
        specials: marks of the family, beside `BASE`.
        words: that are one token.
        bos: put `<s>` in front of a text, as the processors of some families rely on.
        named: attributes such as `image_token`, which processors look for.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate([*BASE, *letters])}
    merges: dict[tuple[str, str], None] = {}

    def join(left: str, right: str) -> str:
        merges.setdefault((left, right))
        vocabulary.setdefault(left + right, len(vocabulary))
        return left + right

    for word in words:
        whole = functools.reduce(join, word)
        join("\u0120", whole)  # the byte-level mark of a blank
    # a word of the vocabulary is taken as it is, whatever merges of other words would make of it
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges), ignore_merges=True))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    marks = dict.fromkeys([*BASE, *specials, *named.values()])
    core.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    if bos:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        unk_token="<unk>", extra_special_tokens=named, model_max_length=100_000,
    )  # fmt: skip


def chat(
    image: str, *, start: str = "<|im_start|>{}\n", end: str = "<|im_end|>\n", bos: str = ""
) -> str:
    """Return a chat template of the usual form; `start` has the place of the role."""
    before, after = start.split("{}")
    return (
        f"{bos}{{% for m in messages %}}{before}{{{{ m['role'] }}}}{after}"
        "{% if m['content'] is string %}{{ m['content'] }}{% else %}"
        f"{{% for part in m['content'] %}}{{% if part['type'] == 'image' %}}{image}"
        "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
        f"{end}{{% endfor %}}{{% if add_generation_prompt %}}{before}assistant{after}{{% endif %}}"
    )


TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 4096,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
}  # fmt: skip
CHATML = ("<|im_start|>", "<|im_end|>")
VISION = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
}  # fmt: skip
