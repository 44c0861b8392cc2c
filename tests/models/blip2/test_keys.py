"""Names of weights in Hugging Face's folders and in files of wrapped models."""

import pytest
import torch
from transformers import (
    Blip2Config,
    Blip2ForImageTextRetrieval,
    Blip2QFormerConfig,
    Blip2VisionConfig,
)

from lavis.models.blip2.critic import Blip2Critic


def built(tiny_config, **changes):
    return Blip2Critic.from_config(tiny_config(load_pretrained=True, **changes))


def retrieval_model():
    torch.manual_seed(1)
    sizes = {"hidden_size": 64, "intermediate_size": 279, "num_hidden_layers": 3}
    vision = Blip2VisionConfig(**sizes, num_attention_heads=4, image_size=28, patch_size=14)
    qformer = Blip2QFormerConfig(
        vocab_size=30523,
        hidden_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=96,
        use_qformer_text_input=True,
    )
    config = Blip2Config(
        vision_config=vision.to_dict(),
        qformer_config=qformer.to_dict(),
        num_query_tokens=8,
        image_text_hidden_size=24,
    )
    model = Blip2ForImageTextRetrieval(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.2)
        for layer in model.vision_model.encoder.layers:
            layer.self_attn.qkv.bias[64:128] = 0  # BLIP-2 has no key bias
    return model


@pytest.mark.parametrize("shard", ["5GB", "300KB"])
def test_hugging_face_folders(tiny_config, golden, tmp_path, shard):
    theirs = retrieval_model()
    theirs.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard == "300KB")
    ours = built(tiny_config, pretrained=str(tmp_path)).eval()
    ids, mask = ours.tokenize(golden.texts)
    with torch.no_grad():
        expected = theirs(
            pixel_values=golden.inputs["image"],
            input_ids=ids,
            attention_mask=mask,
            use_image_text_matching_head=True,
        ).logits_per_image
    batch = {"image": golden.inputs["image"], "text_input": golden.texts}
    torch.testing.assert_close(ours.predict(batch)["logits"], expected, rtol=0, atol=1e-4)


def test_a_compiled_and_wrapped_model_loads(tiny_config, golden, score, tmp_path):
    state = {f"module._orig_mod.{k}": v for k, v in golden.state.items()}
    torch.save({"model": state}, tmp_path / "critic.pth")
    logits = score(built(tiny_config, pretrained=str(tmp_path / "critic.pth")))
    torch.testing.assert_close(logits, golden.outputs["itm_logits"], rtol=0, atol=1e-4)
