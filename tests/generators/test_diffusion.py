"""Diffusion: what the pipeline is asked for, and equal images from equal seeds."""

import pickle
import sys
import types
import weakref
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from lavis.common.errors import ConfigError, DataError
from lavis.common.storage.cache import Cache
from lavis.generators.base import ImageRequest, ImageScorer, image_requests
from lavis.generators.build import build_generator
from lavis.generators.store import FillReport, ImageStore


class FakePipeline:
    """Draws noise from the generators it is given, and remembers what it was asked for."""

    loaded: ClassVar[list] = []
    flags = "nsfw_content_detected"  # images of prompts with "bare" in them are blanked

    @classmethod
    def from_pretrained(cls, name, **options):
        if name == "absent":
            raise OSError("absent is not a folder\nand more")
        pipeline = cls()
        pipeline.name, pipeline.options, pipeline.calls = name, options, []
        cls.loaded.append(pipeline)
        return pipeline

    def set_progress_bar_config(self, disable):
        self.quiet = disable

    def to(self, device):
        self.device = device
        return self

    def __call__(self, prompt, generator, height, width, **options):
        self.calls.append({"prompt": prompt, "size": (height, width), **options})
        noise = [torch.randint(0, 256, (height, width, 3), generator=g) for g in generator]
        bare = ["bare" in text for text in prompt]
        black = [flag or "overflow" in text for flag, text in zip(bare, prompt, strict=True)]
        images = [
            Image.fromarray((n * (not is_black)).byte().numpy())
            for n, is_black in zip(noise, black, strict=True)
        ]
        flags = {self.flags: bare if any(bare) else None} if self.flags else {}
        return types.SimpleNamespace(images=images, **flags)


@pytest.fixture
def fake(monkeypatch):
    module = types.ModuleType("diffusers")
    module.AutoPipelineForText2Image = FakePipeline
    monkeypatch.setitem(sys.modules, "diffusers", module)
    FakePipeline.loaded.clear()
    return FakePipeline.loaded


def test_the_pipeline_gets_turbo_defaults(fake):
    generator = build_generator("diffusion", {"image_size": 8, "batch_size": 2, "device": "cpu"})
    assert not fake, "nothing is loaded before an image is missing"
    images = generator.generate(image_requests(["a cat", "a dog", "a cat"]))
    assert [p.size for p in images] == [(8, 8)] * 3
    (pipeline,) = fake
    assert pipeline.name == "stabilityai/sdxl-turbo" and pipeline.quiet
    assert pipeline.options == {
        "revision": None,
        "variant": None,
        "dtype": torch.float32,
        "trust_remote_code": False,
    }
    common = {"num_inference_steps": 1, "guidance_scale": 0.0, "output_type": "pil"}
    assert pipeline.calls == [
        {"prompt": ["a cat", "a dog"], "size": (8, 8), **common},
        {"prompt": ["a cat"], "size": (8, 8), **common},
    ]


def test_an_image_depends_on_its_own_seed_only(fake):
    requests = image_requests(["a cat", "a dog", "a cat"], seed=4)
    wide = build_generator("diffusion", {"image_size": 8, "batch_size": 3, "device": "cpu"})
    single = build_generator("diffusion", {"image_size": 8, "batch_size": 1, "device": "cpu"})
    images = [np.asarray(p) for p in wide.generate(requests)]
    others = [np.asarray(p) for p in single.generate(requests[::-1])[::-1]]
    for image, other in zip(images, others, strict=True):
        np.testing.assert_array_equal(image, other)
    assert len({p.tobytes() for p in images}) == 3
    torch.manual_seed(99)
    np.testing.assert_array_equal(wide.generate(requests[:1])[0], images[0])


def test_the_content_of_a_pipelines_folder_is_part_of_its_images(fake, tmp_path):
    def fingerprint(folder):
        return build_generator("diffusion", {"model": str(folder)}).fingerprint()

    def write(place, weights):
        (place / "unet").mkdir(parents=True)
        (place / "model_index.json").write_text("{}")
        (place / "unet" / "unet.safetensors").write_bytes(weights)
        return place

    first = write(tmp_path / "a" / "sd", b"12")
    assert fingerprint(first) == fingerprint(write(tmp_path / "b" / "sd", b"12"))
    fine_tuned = fingerprint(write(tmp_path / "c" / "sd", b"13"))  # the same names and sizes
    assert fine_tuned != fingerprint(first)
    assert str(tmp_path) not in str(fine_tuned)
    before = fingerprint(first)
    (first / "scheduler_config.json").write_text("{}")
    assert fingerprint(first) != before


def test_weights_of_another_precision_draw_other_images(fake, monkeypatch):
    plain = build_generator("diffusion", {"device": "cpu"}).fingerprint()
    assert plain == build_generator("diffusion", {"dtype": "fp32", "batch_size": 3}).fingerprint()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    on_gpu = build_generator("diffusion", {}).fingerprint()
    assert (plain["dtype"], on_gpu["dtype"]) == ("fp32", "fp16")


@pytest.mark.parametrize("flags", ["nsfw_content_detected", "nsfw_detected"])
def test_what_the_safety_checker_blanks_is_withheld_for_good(fake, monkeypatch, tmp_path, flags):
    monkeypatch.setattr(FakePipeline, "flags", flags)
    generator = build_generator("diffusion", {"image_size": 8, "batch_size": 2, "device": "cpu"})
    store = ImageStore(Cache(tmp_path), generator)
    requests = image_requests(["a cat", "a bare hill", "a dog"])
    assert store.fill(requests, progress=False) == FillReport(share=3, made=2, withheld=1)
    assert [store.is_withheld(request) for request in requests] == [False, True, False]
    (pipeline,) = fake
    calls = len(pipeline.calls)
    again = ImageStore(Cache(tmp_path), generator)
    assert again.missing(requests) == again.missing(requests, verify=True) == []
    assert again.fill(requests, progress=False) == FillReport(share=3, made=0, withheld=1)
    with pytest.raises(DataError, match="withheld image: by the pipeline's safety checker"):
        again.image(again.key(*requests[1]))
    with pytest.raises(DataError, match="withheld image"):
        again.images(requests)
    assert len(pipeline.calls) == calls, "it is not drawn again"
    assert all(np.asarray(again.image(again.key(*r))).any() for r in requests[::2])
    scores = again.scores(requests, Bright())
    assert scores[1] == 0 and scores[0] > 0.1 and scores[2] > 0.1


def test_a_black_image_that_nobody_flags_is_told(fake, monkeypatch, caplog):
    monkeypatch.setattr(FakePipeline, "flags", "")
    generator = build_generator("diffusion", {"image_size": 8, "device": "cpu"})
    with caplog.at_level("WARNING"):
        black, noise = generator.generate(image_requests(["an overflow", "a cat"]))
    assert not np.asarray(black).any() and np.asarray(noise).any()
    (record,) = caplog.records
    assert "'an overflow'" in record.getMessage() and "all black" in record.getMessage()


def test_a_pipeline_is_let_go_and_stays_in_its_process(fake, tmp_path):
    generator = build_generator("diffusion", {"image_size": 8, "device": "cpu"})
    store = ImageStore(Cache(tmp_path), generator)
    requests = image_requests(["a cat", "a dog"])
    store.fill(requests[:1], progress=False)
    alive = weakref.ref(fake[0])
    assert pickle.loads(pickle.dumps(generator))._pipeline is None
    reader = pickle.loads(pickle.dumps(store))
    assert not hasattr(reader.generator, "_pipeline") and reader.generator.name == "diffusion"
    assert reader.key(*requests[0]) == store.key(*requests[0])
    assert np.asarray(reader.image(reader.key(*requests[0]))).any()
    with pytest.raises(DataError, match=r"1 images of generator 'diffusion' are not stored"):
        reader.images(requests)
    fake.clear()
    store.generator.release()
    assert alive() is None
    store.fill(requests, progress=False)
    assert len(fake) == 1, "it is loaded again where an image is missing"


class Bright(ImageScorer):
    def fingerprint(self):
        return {"name": "bright"}

    def score(self, texts, images):
        return np.array([np.asarray(p).mean() / 255 for p in images], dtype=np.float32)


def test_a_pipeline_that_cannot_be_loaded_is_named(fake):
    generator = build_generator("diffusion", {"model": "absent", "device": "cpu"})
    with pytest.raises(ConfigError, match="cannot load the pipeline 'absent': absent is not a fol"):
        generator.generate([ImageRequest("a cat")])


def test_the_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    generator = build_generator("diffusion", {"device": "cpu"})
    with pytest.raises(ConfigError, match=r"lavis-commonsense\[t2i\]"):
        generator.generate([ImageRequest("a cat")])


@pytest.fixture(scope="module")
def tiny_pipeline(tmp_path_factory):
    """A Stable Diffusion pipeline with random weights, on disk."""
    diffusers = pytest.importorskip("diffusers")
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    blocks = ("DownBlock2D", "CrossAttnDownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D")
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=blocks[0],
        up_block_types=blocks[1],
        cross_attention_dim=16,
        attention_head_dim=4,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=[8, 8],
        norm_num_groups=4,
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
    )
    vocab = {chr(97 + i): i for i in range(26)} | {f"{chr(97 + i)}</w>": 26 + i for i in range(26)}
    vocab |= {"<|startoftext|>": 52, "<|endoftext|>": 53}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)
    text = CLIPTextConfig(
        vocab_size=54,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=52,
        eos_token_id=53,
        pad_token_id=53,
    )
    pipeline = diffusers.StableDiffusionPipeline(
        unet=unet,
        vae=vae,
        text_encoder=CLIPTextModel(text).eval(),
        tokenizer=tokenizer,
        scheduler=diffusers.EulerDiscreteScheduler(steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folder = tmp_path_factory.mktemp("pipeline")
    pipeline.save_pretrained(folder)
    return str(folder)


def test_a_real_pipeline_repeats_its_images(tiny_pipeline):
    options = {"model": tiny_pipeline, "image_size": 16, "steps": 2, "device": "cpu"}
    requests = image_requests(["a cat", "a dog", "a cat"], seed=1)
    wide = build_generator("diffusion", {**options, "batch_size": 3})
    images = [np.asarray(p).astype(int) for p in wide.generate(requests)]
    assert [p.shape for p in images] == [(16, 16, 3)] * 3
    assert np.abs(images[0] - images[2]).mean() > 1
    single = build_generator("diffusion", {**options, "batch_size": 1})
    for image, other in zip(images, single.generate(requests[::-1])[::-1], strict=True):
        assert np.abs(image - np.asarray(other)).max() <= 1  # rounding of another batch size
    for image, other in zip(images, wide.generate(requests), strict=True):
        np.testing.assert_array_equal(image, other)
