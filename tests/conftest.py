"""Tiny language models with tokenizers of their own, as folders of transformers' form; Chromium."""

import os
import shutil

import pytest
from hypothesis import settings

# How long an example takes says what else the machine does, not whether it holds.
settings.register_profile("lavis", deadline=None)
settings.load_profile("lavis")

WORDS = (
    "what which colour is are [0] [1] [2] ? . : answer question rationale red blue green box dog "
    "cat the a i see near far it in of and on image person man woman holding 0 1 2 [ ]"
).split()
LETTERS = list("abcdefghijklmnopqrstuvwxyz,'-/")


def make_tokenizer(kind):
    """Words and letters after a blank mark, so that whole words and their rests are tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "</s>", "<unk>"]
    pieces = [f"\u2581{word}" for word in WORDS] + WORDS + [f"\u2581{c}" for c in LETTERS] + LETTERS
    vocabulary = [(token, 0.0) for token in special]
    vocabulary += [(piece, -float(20 - len(piece))) for piece in dict.fromkeys(pieces)]
    vocabulary.append(("\u2581", -25.0))
    core = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    template = "$A </s>" if kind == "t5" else "</s> $A"
    core.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def make_language_model(folder, kind):
    """Write a tiny `t5`, `opt` or `gpt2` with random weights; returns the folder as text."""
    import torch
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        OPTConfig,
        OPTForCausalLM,
        T5Config,
        T5ForConditionalGeneration,
    )

    torch.manual_seed(0)
    tokenizer = make_tokenizer(kind)
    rows = len(tokenizer) + 8  # spare rows, as the published models have
    if kind == "t5":
        model = T5ForConditionalGeneration(
            T5Config(
                vocab_size=rows, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
                feed_forward_proj="gated-gelu", dropout_rate=0.1,
                decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
            )
        )  # fmt: skip
    elif kind == "opt":
        model = OPTForCausalLM(
            OPTConfig(
                vocab_size=rows, hidden_size=32, ffn_dim=48, num_hidden_layers=2,
                num_attention_heads=4, max_position_embeddings=200, word_embed_proj_dim=32,
                pad_token_id=0, bos_token_id=1, eos_token_id=1,
            )
        )  # fmt: skip
    else:
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=rows, n_embd=32, n_layer=2, n_head=4, n_positions=200,
                bos_token_id=1, eos_token_id=1, pad_token_id=0,
            )
        )  # fmt: skip
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.5 if "embed" in name or "shared" in name else 0.15)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def language_models(tmp_path_factory):
    """Folders of tiny random language models: `t5`, `opt`, `gpt2`."""
    root = tmp_path_factory.mktemp("language_models")
    return {kind: make_language_model(root / kind, kind) for kind in ("t5", "opt", "gpt2")}


@pytest.fixture
def browser():
    """A headless Chromium page (playwright); skips where there is none."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="browser tests need playwright: pip install '.[dev]'"
    )
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    with api.sync_playwright() as playwright:
        if found is None and not os.path.exists(playwright.chromium.executable_path):
            pytest.skip(f"browser tests need one of {', '.join(names)}, none is installed")
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1200, "height": 800})
        page.set_default_timeout(90_000)
        page.foreign, page.dialogs = [], []
        local = ("http://127.0.0.1:", "data:", "blob:")
        page.on(
            "request", lambda r: None if r.url.startswith(local) else page.foreign.append(r.url)
        )
        page.on("dialog", lambda d: (page.dialogs.append(d.message), d.dismiss()))
        yield page
        chromium.close()
