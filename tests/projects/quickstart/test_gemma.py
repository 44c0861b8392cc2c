import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig

from projects.quickstart import gemma

ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, "-m", "projects.quickstart.gemma"]
gguf = pytest.importorskip("gguf")
EIGHT_BITS = gguf.GGMLQuantizationType.Q8_0

PIECES = ["▁", "a", "b", "c", "ab", "▁a", "▁ab", "abc", "▁abc"]  # likeliest first
TOKENS = [
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "\n\n",
    *(f"<0x{n:02X}>" for n in range(256)),
    *PIECES,
]
KINDS = [3, 3, 3, 3, 4, *[6] * 256, *[1] * len(PIECES)]
SCORES = [-1000.0] * 5 + [0.0] * 256 + [-float(n) for n in range(len(PIECES))]


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=len(TOKENS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=7,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        query_pre_attn_scalar=16,
        sliding_window=4,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    model = Gemma3ForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:  # so that 1 + weight is told from weight
                weight.normal_(std=0.3)
            elif "down_proj" in name:  # what eight bits can say
                packed = gguf.quants.quantize(weight.numpy(), EIGHT_BITS)
                weight.copy_(torch.from_numpy(gguf.quants.dequantize(packed, EIGHT_BITS)))
    return model


def write(path, model, *, architecture="gemma3"):
    """Write a model as llama.cpp does: gains plus one, some matrices in blocks of 8 bits."""
    names = {ours: theirs for theirs, ours in gemma.OF_LAYER.items()}
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(1e6)
    writer.add_sliding_window(config.sliding_window)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(TOKENS)
    writer.add_token_scores(SCORES)
    writer.add_token_types(KINDS)
    writer.add_pad_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_unk_token_id(3)
    for name, value in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        array = value.numpy().astype(np.float32)
        if name.startswith("model.layers."):
            _, _, layer, rest = name.split(".", 3)
            theirs = f"blk.{layer}.{names[rest.removesuffix('.weight')]}.weight"
        else:
            theirs = "token_embd.weight" if "embed" in name else "output_norm.weight"
        if "norm" in name:
            writer.add_tensor(theirs, array + 1)
        elif "down_proj" in name:
            packed = gguf.quants.quantize(array, EIGHT_BITS)
            writer.add_tensor(theirs, packed, raw_dtype=EIGHT_BITS)
        else:
            writer.add_tensor(theirs, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    place = tmp_path_factory.mktemp("gguf")
    write(place / "tiny.gguf", tiny)
    command = [*COMMAND, place / "out", "--gguf", place / "tiny.gguf"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "Gemma Terms of Use" in done.stdout
    return place / "out"


def test_the_converted_model_predicts_as_the_one_the_file_was_made_of(tiny, folder):
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert model.dtype == torch.float32
    ids = torch.tensor([[2, 262, 263, 265, 268, 261, 262, 269]])
    with torch.no_grad():
        expected, found = tiny(ids).logits, model(ids).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert model.config.layer_types == tiny.config.layer_types


def test_texts_become_the_tokens_of_the_likeliest_merges(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.convert_ids_to_tokens(tokenizer("abc abc\n\nz").input_ids) == [
        "<bos>", "abc", "▁abc", "\n\n", "<0x7A>",
    ]  # fmt: skip
    assert tokenizer.decode(tokenizer("abc ab", add_special_tokens=False).input_ids) == "abc ab"
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 1, 0)


def test_a_second_call_converts_nothing(folder):
    before = (folder / "model.safetensors").stat().st_mtime_ns
    done = subprocess.run([*COMMAND, folder], capture_output=True, text=True, cwd=ROOT)
    assert "there already" in done.stdout
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert "Modified" in (folder / "NOTICE").read_text()


def test_another_model_is_refused(tiny, tmp_path):
    write(tmp_path / "other.gguf", tiny, architecture="llama")
    command = [*COMMAND, tmp_path / "out", "--gguf", tmp_path / "other.gguf"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode and "converts Gemma 3 only" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.gguf"]
