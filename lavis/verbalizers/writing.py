"""Models of transformers on this machine; those that write texts about images.

Shapes: N requests, L prompt tokens, V vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from lavis.common.errors import ConfigError
from lavis.common.pretrained import load_with_processor
from lavis.verbalizers.base import WriteError, WriteRequest
from lavis.verbalizers.config import WriterConfig


def load_local(auto_class: str, config: Any, device: str, what: str) -> tuple[Any, Any]:
    """Return a frozen model on a device, and its processor.

    Args:
        auto_class: name of the class of transformers that knows the model's kind.
        config: has `model`, `revision` and `dtype`.
        what: the kind, named in the error.

    Raises:
        ConfigError: one of them cannot be loaded.
    """
    import transformers

    model, processor = load_with_processor(
        getattr(transformers, auto_class),
        config.model,
        refusal=f"cannot load '{config.model}' as {what}",
        revision=config.revision,
        dtype=getattr(torch, config.dtype),
    )
    return model.to(device).eval().requires_grad_(False), processor


class SeededNucleus(LogitsProcessor):
    """Nucleus sampling with a random stream of its own for each row.

    `generate` draws all rows from one stream, so that a text would depend on the batch it was
    written in. Here each row draws one uniform number a step and everything but the token it falls
    on becomes -inf, so that whatever `generate` does next picks this token.

    Args:
        seeds: of the rows.
        temperature: above 0.
        top_p: the smallest set of tokens with this probability is drawn from.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, top_p: float) -> None:
        self._streams = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._temperature, self._top_p = temperature, top_p

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores `(N, V)` with one finite value in each row."""
        draws = torch.cat([torch.rand(1, generator=stream) for stream in self._streams])
        probabilities = (scores.float() / self._temperature).softmax(dim=-1)
        ordered, tokens = probabilities.sort(dim=-1, descending=True)
        before = ordered.cumsum(dim=-1) - ordered  # probability of all better tokens
        kept = ordered * (before < self._top_p)  # (N, V); the best token always stays
        sums = kept.cumsum(dim=-1)
        wanted = draws.to(sums)[:, None] * sums[:, -1:]
        place = torch.searchsorted(sums, wanted, right=True)
        last = (kept > 0).sum(dim=-1, keepdim=True) - 1  # a draw at the very end stays inside
        chosen = tokens.gather(-1, torch.minimum(place, last))
        return torch.full_like(scores, -torch.inf).scatter(-1, chosen, 0.0)


class LocalWriter:
    """An image-text-to-text model, BLIP-2 included, with its processor.

    Chat models get the prompt through their template; the others get it as it is.
    """

    def __init__(self, config: WriterConfig, device: str) -> None:
        name = "AutoModelForImageTextToText"
        self.model, self.processor = load_local(name, config, device, "an image-text-to-text model")
        self.config = config
        self.tokenizer = self.processor.tokenizer
        self.tokenizer.padding_side = "left"  # prompts must end where the text begins
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.is_chat = bool(getattr(self.processor, "chat_template", None))

    def write(self, requests: Iterable[WriteRequest]) -> list[str | WriteError]:
        """Return a text for each request; neighbours with equal prompt and image encode it once."""
        texts: list[str | WriteError] = []
        batch: list[list[WriteRequest]] = []
        for group in _alike(requests):
            # One batch repeats each of its images equally often.
            if batch and (len(batch) == self.config.batch_size or len(batch[0]) != len(group)):
                texts += self._write(batch, len(batch[0]))
                batch = []
            batch.append(group)
        if batch:
            texts += self._write(batch, len(batch[0]))
        return texts

    @torch.inference_mode()
    def _write(self, groups: list[list[WriteRequest]], count: int) -> list[str]:
        inputs = self._inputs([group[0] for group in groups])
        seeds = [request.seed for group in groups for request in group]
        options: dict[str, Any] = {"do_sample": False}
        assert self.config.temperature is not None and self.config.top_p is not None  # as checked
        if self.config.temperature > 0:
            sampler = SeededNucleus(seeds, self.config.temperature, self.config.top_p)
            # Neutral values, so that nothing the model's own settings ask for comes after.
            options = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
            options |= {"num_return_sequences": count}
            options["logits_processor"] = LogitsProcessorList([sampler])
        output = self.model.generate(
            **inputs,
            **options,
            num_beams=1,
            max_new_tokens=self.config.max_tokens,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        if self.config.temperature == 0:
            output = output.repeat_interleave(count, dim=0)
        new = _without_prompt(output, inputs["input_ids"].repeat_interleave(count, dim=0))
        texts = self.tokenizer.batch_decode(new, skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts]

    def _inputs(self, requests: Sequence[WriteRequest]) -> Any:
        images = [request.image for request in requests]
        if any(image is None for image in images):
            raise ConfigError(f"'{self.config.model}' writes about images; a text has none here")
        prompts = [self._prompt(request.prompt) for request in requests]
        nested: list[Any] = [[image] for image in images] if self.is_chat else images
        inputs = self.processor(images=nested, text=prompts, padding=True, return_tensors="pt")
        for name, value in inputs.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                inputs[name] = value.to(self.model.dtype)
        return inputs.to(self.model.device)

    def _prompt(self, text: str) -> str:
        if not self.is_chat:
            return text
        content = [{"type": "image"}, *([{"type": "text", "text": text}] if text else [])]
        return self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )


def _alike(requests: Iterable[WriteRequest]) -> Iterator[list[WriteRequest]]:
    """Yield neighbours with the same prompt and image, as groups."""
    for _, group in itertools.groupby(requests, lambda one: (id(one.image), one.prompt)):
        yield list(group)


def _without_prompt(output: Tensor, prompt: Tensor) -> Tensor:
    """Return `(N, L)` outputs without the prompt, with which decoder-only models begin them."""
    length = prompt.shape[1]
    starts_with_it = output.shape[1] >= length and torch.equal(output[:, :length], prompt)
    return output[:, length:] if starts_with_it else output
