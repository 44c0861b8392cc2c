"""Tiny random models and their processors, saved as `from_pretrained` wants them."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessor,
    Owlv2Processor,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
)

WORDS = "a the red blue dog cat ball man holds runs on in sees big small near tree ? .".split()
SMALL = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip
SQUARE = {"height": 16, "width": 16}
CHAT = (
    "{% for m in messages %}USER: {% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endfor %} ASSISTANT:"
)


def word_tokenizer(**special):
    """Return a tokenizer of whole words and single letters' leftovers as `<unk>`."""
    names = ["<pad>", "</s>", "<unk>", *special.pop("more", [])]
    vocab = {word: number for number, word in enumerate([*names, *WORDS])}
    inner = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", bos_token="</s>",
        unk_token="<unk>", **special,
    )  # fmt: skip


def letter_tokenizer(length):
    """Return CLIP's tokenizer without merges: letters are its words."""
    letters = [chr(97 + i) for i in range(26)]
    vocab = {letter: i for i, letter in enumerate(letters)}
    vocab |= {f"{letter}</w>": i + 26 for i, letter in enumerate(letters)}
    vocab |= {"<|startoftext|>": 52, "<|endoftext|>": 53}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=length)


def save_clip(folder):
    """Save a CLIP whose vectors differ much from word to word."""
    torch.manual_seed(0)
    text = {**SMALL, "vocab_size": 54, "max_position_embeddings": 40, "eos_token_id": 53}
    vision = {**SMALL, "image_size": 16, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    model.save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=SQUARE)
    CLIPProcessor(images, letter_tokenizer(40)).save_pretrained(folder)
    return str(folder)


def save_siglip(folder):
    """Save a SigLIP."""
    torch.manual_seed(1)
    text = {**SMALL, "vocab_size": 40, "max_position_embeddings": 12, "projection_size": 16}
    vision = {**SMALL, "image_size": 16, "patch_size": 8}
    SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    images = SiglipImageProcessor(size=SQUARE)
    SiglipProcessor(images, word_tokenizer(model_max_length=12)).save_pretrained(folder)
    return str(folder)


def save_blip2(folder):
    """Save a BLIP-2 with an OPT."""
    torch.manual_seed(2)
    tokenizer = word_tokenizer(more=["<image>"])
    config = Blip2Config(
        vision_config={**SMALL, "image_size": 16, "patch_size": 8},
        qformer_config={**SMALL, "vocab_size": 30, "encoder_hidden_size": 16},
        text_config={
            "model_type": "opt", "vocab_size": 30, "hidden_size": 16, "ffn_dim": 24,
            "num_hidden_layers": 1, "num_attention_heads": 2, "word_embed_proj_dim": 16,
            "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1,
        },
        num_query_tokens=3,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    Blip2ForConditionalGeneration(config).save_pretrained(folder)
    images = BlipImageProcessor(size=SQUARE)
    Blip2Processor(images, tokenizer, num_query_tokens=3).save_pretrained(folder)
    return str(folder)


def save_llava(folder):
    """Save a LLaVA with a chat template."""
    torch.manual_seed(3)
    tokenizer = word_tokenizer(more=["<image>"], extra_special_tokens={"image_token": "<image>"})
    text = {**SMALL, "vocab_size": 30, "num_key_value_heads": 2, "eos_token_id": 1}
    config = LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model",
            **SMALL,
            "image_size": 16,
            "patch_size": 8,
        },
        text_config={"model_type": "llama", **text},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=SQUARE)
    LlavaProcessor(
        images, tokenizer, patch_size=8, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=CHAT,
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


def save_owlv2(folder):
    """Save an OWLv2 of 4 x 4 boxes."""
    torch.manual_seed(4)
    text = {**SMALL, "vocab_size": 54, "max_position_embeddings": 16, "eos_token_id": 53}
    vision = {**SMALL, "image_size": 32, "patch_size": 8}
    config = Owlv2Config(text_config=text, vision_config=vision, projection_dim=16)
    Owlv2ForObjectDetection(config).save_pretrained(folder)
    images = Owlv2ImageProcessor(size={"height": 32, "width": 32})
    Owlv2Processor(images, letter_tokenizer(16)).save_pretrained(folder)
    return str(folder)
