"""Local writers: texts that depend on their own seed only."""

import pytest
import torch
from transformers import AutoProcessor, Blip2ForConditionalGeneration

from lavis.verbalizers.base import WriteRequest
from lavis.verbalizers.config import WriterConfig
from lavis.verbalizers.writing import LocalWriter, SeededNucleus


def writer(folder, **options):
    return LocalWriter(WriterConfig(model=folder, max_tokens=6, **options), "cpu")


@pytest.mark.parametrize("name", ["blip2", "llava"])
def test_a_text_depends_on_its_seed_and_not_on_its_batch(tiny, image, name):
    requests = [
        WriteRequest(f"{p}-{s}", ["the", "red dog near"][p], each, 10 * p + s)
        for p, each in enumerate([image(0), image(1)])
        for s in range(3)
    ]
    together = writer(tiny(name), batch_size=4).write(requests)
    one = writer(tiny(name), batch_size=1)
    assert together == [one.write([request])[0] for request in reversed(requests)][::-1]
    assert len(set(together)) > 3


def test_greedy_captions_equal_blip2s_own(tiny, image):
    folder = tiny("blip2")
    request = WriteRequest("k", "red dog", image(3), 0)
    assert writer(folder, temperature=0).write([request, request]) == [_own(folder, request)] * 2


def _own(folder, request):
    model = Blip2ForConditionalGeneration.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(images=request.image, text=request.prompt, return_tensors="pt")
    output = model.generate(**inputs, do_sample=False, max_new_tokens=6)
    new = output[0, inputs["input_ids"].shape[1] :]
    return processor.tokenizer.decode(new, skip_special_tokens=True).strip()


def test_the_nucleus_is_drawn_from_by_probability():
    scores = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().repeat(4000, 1)
    picked = SeededNucleus(range(4000), 1.0, 0.75)(None, scores).argmax(dim=-1)
    shares = torch.bincount(picked, minlength=4) / 4000
    # 0.5 alone is below 0.75, 0.5 + 0.3 is above: two tokens, 5 : 3.
    torch.testing.assert_close(shares, torch.tensor([0.625, 0.375, 0, 0]), atol=0.03, rtol=0)
    sharp = SeededNucleus(range(9), 0.01, 1.0)(None, scores[:9])
    assert sharp.argmax(dim=-1).tolist() == [0] * 9 and sharp.isfinite().sum() == 9
