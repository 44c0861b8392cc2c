"""Any language model of transformers on this machine, several prompts at a time.

Each request has its own random stream, seeded by its content: its reply depends neither on the
others in the batch nor on a restart. A vision-language model reads images, too.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    LogitsProcessor,
    LogitsProcessorList,
)

from lavis.common.dist import pick_device
from lavis.common.errors import ConfigError, RecordError
from lavis.common.multimodal import family_of, load_vlm
from lavis.common.multimodal.loading import Dtype
from lavis.common.pretrained import Specials, load_pretrained, load_tokenizer
from lavis.common.registry import llms
from lavis.llm.base import ChatReply, Message, PendingRequest, image_parts, message_texts
from lavis.llm.config import TransformersConfig
from lavis.llm.local_images import ImagePrompts, WrittenPrompt, move
from lavis.llm.money.billing import PromptBound
from lavis.llm.money.budget import BudgetReached
from lavis.llm.replies.completion import no_answer
from lavis.llm.replies.reasoning import answer_text, open_mark
from lavis.llm.store import BackendContext

logger = logging.getLogger(__name__)

_DTYPES: Mapping[str, Dtype] = {
    "auto": "auto", "float32": "fp32", "bfloat16": "bf16", "float16": "fp16",
}  # fmt: skip


@llms.register("transformers")
class TransformersBackend:
    """Generates for `batch_size` prompts at once."""

    keeps_replies: ClassVar[bool] = True
    config_class: ClassVar[type[TransformersConfig]] = TransformersConfig

    def __init__(self, config: TransformersConfig, context: BackendContext) -> None:
        self._config, self._context = config, context
        self._images: ImagePrompts | None = None
        self._prompts_in_parts = False  # texts alone, too: no template of a model of texts is known
        self._blind = "the local language model reads no images"  # why it reads none
        self._model, self._tokenizer = self._load_seeing() or self._load_causal()
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._specials = Specials.of(self._tokenizer)
        self._pending: list[PendingRequest] = []
        self.window = config.batch_size

    @classmethod
    def build(cls, config: TransformersConfig, context: BackendContext) -> TransformersBackend:
        """Return the backend, its model loaded."""
        return cls(config, context)

    def _load_causal(self) -> tuple[Any, Any]:
        """Return a model of texts on its device, and its tokenizer."""
        config = self._config
        files = {"revision": config.revision, "gguf_file": config.gguf_file}
        where: dict[str, Any] = {k: v for k, v in files.items() if v is not None}
        tokenizer: Any = load_tokenizer(config.model, "model", padding_side="left", **where)
        model: Any = load_pretrained(
            AutoModelForCausalLM,
            config.model,
            refusal=f"model: cannot load '{config.model}'",
            dtype=config.dtype,
            **where,
        )
        return model.to(pick_device(config.device)).eval(), tokenizer

    def _load_seeing(self) -> tuple[Any, Any] | None:
        """Return a vision-language model and its tokenizer; None where the name is of another.

        Some models are both: without an image processor they are read as models of texts.
        """
        config, refusal = self._config, f"model: cannot load '{self._config.model}'"
        if config.gguf_file is not None or config.template == "plain":
            return None
        own = load_pretrained(AutoConfig, config.model, refusal=refusal, revision=config.revision)
        if type(own) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
            return None
        try:
            processor, model = load_vlm(
                config.model,
                revision=config.revision,
                dtype=_DTYPES[config.dtype],
                device=pick_device(config.device),
                refusal=refusal,
            )
        except ConfigError as error:
            if type(own) not in MODEL_FOR_CAUSAL_LM_MAPPING:
                raise
            logger.warning("the model is read without its eyes: %s", error)
            self._blind = f"the local language model reads no images: {error}"
            return None
        processor.tokenizer.padding_side = "left"
        self._prompts_in_parts = type(own) not in MODEL_FOR_CAUSAL_LM_MAPPING
        self._images = ImagePrompts(processor, family_of(own.model_type))
        return model, processor.tokenizer

    def submit(self, each: PendingRequest) -> None:
        """Take one request."""
        self._pending.append(each)

    def collect(self) -> list[ChatReply]:
        """Generate for the submitted requests, as many at once as the caps allow.

        Those that a cap blocks wait for the next call: by then the rest is settled.
        """
        pending, self._pending = self._pending, []
        replies: list[ChatReply] = []
        ready: dict[int, list[_Ready]] = {}  # number of images -> requests, which go together
        for place, each in enumerate(pending):
            try:
                one = self._prepared(each)
                most = each.request.max_tokens
                if not self._context.account.reserve(each.content_key, one.bound, most, wait=False):
                    self._pending = pending[place:]
                    break
                ready.setdefault(len(one.prompt.images), []).append(one)
            except RecordError as error:
                reply = ChatReply(each.content_key, error=error.reason, failure="refused")
                replies.append(reply)
            except BudgetReached as error:
                replies.append(ChatReply(each.content_key, error=str(error), failure="budget"))
        for group in ready.values():
            replies += self._generate(group)
        return replies

    def close(self) -> None:
        """Nothing is held."""

    def _prepared(self, each: PendingRequest) -> _Ready:
        """Return a request with its prompt; raises `RecordError` where the model cannot read it."""
        messages, bound = list(each.request.messages), self._context.counter.bound(each.request)
        if not image_parts(messages):
            return _Ready(each, WrittenPrompt(self._prompt(messages), []), bound)
        if self._images is None:
            raise RecordError(self._blind)
        prompt = self._images.write(messages)
        tokens = self._images.encode([prompt])["input_ids"].shape[1]  # no rule is as right
        return _Ready(each, prompt, PromptBound(text=tokens, guess=tokens, documented=True))

    @torch.inference_mode()
    def _generate(self, ready: list[_Ready]) -> list[ChatReply]:
        """Generate for requests with equally many images."""
        pending = [one.pending for one in ready]
        if ready[0].prompt.images:
            assert self._images is not None, "else the request was refused"
            inputs = move(self._images.encode([one.prompt for one in ready]), self._model)
        else:
            inputs = self._text_inputs([one.prompt.text for one in ready])
        longest = max(each.request.max_tokens for each in pending)
        output = self._model.generate(
            **inputs,
            max_new_tokens=longest,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=self._tokenizer.pad_token_id,
            logits_processor=LogitsProcessorList([_OwnStreams([self._drawn(a) for a in pending])]),
        )
        ids, lengths = inputs["input_ids"], inputs["attention_mask"].sum(1).tolist()
        new = output if self._model.config.is_encoder_decoder else output[:, ids.shape[1] :]
        texts = [one.prompt.text for one in ready]
        return [self._reply(*row) for row in zip(pending, texts, new, lengths, strict=True)]

    def _text_inputs(self, texts: list[str]) -> dict[str, Any]:
        # an end token behind a prompt would be what the model goes on from
        opening = [] if self._chats() else list(self._specials.opening)
        rows = [opening + self._tokenizer.encode(text, add_special_tokens=False) for text in texts]
        inputs = self._tokenizer.pad({"input_ids": rows}, return_tensors="pt").to(
            self._model.device
        )
        inputs.pop("token_type_ids", None)
        return dict(inputs)

    def _reply(
        self, each: PendingRequest, prompt: str, ids: Tensor, prompt_tokens: int
    ) -> ChatReply:
        kept = ids[: each.request.max_tokens].tolist()
        ends = self._ends()
        stop = next((place for place, token in enumerate(kept) if token in ends), None)
        finish = "length" if stop is None else "stop"
        kept = kept if stop is None else kept[:stop]
        text, thought = self._answer(kept, prompt)
        key, counts = each.content_key, (prompt_tokens, max(1, len(kept)))
        if not text.strip():  # asked again it would write the same
            reason = no_answer(thought, finish).reason
            self._context.account.settle(key, *counts)
            return ChatReply(key, "", finish, *counts, error=reason, failure="refused")
        reply = ChatReply(key, text, finish, *counts, reasoning=thought)
        return self._context.finish(key, reply, each.request, key)

    def _answer(self, ids: list[int], prompt: str) -> tuple[str, str]:
        """Return the answer and the reasoning in tokens; marks may be special tokens."""
        opened = open_mark(prompt)
        answer, thought = answer_text(opened + self._tokenizer.decode(ids))
        if not opened and not thought:
            return self._tokenizer.decode(ids, skip_special_tokens=True), ""
        for token in self._tokenizer.all_special_tokens:
            answer = answer.replace(token, "")
        return answer.strip(), thought

    def _drawn(self, each: PendingRequest) -> PendingRequest:
        """Return a request with the model's own temperature and top_p where it names none."""
        own, request = self._model.generation_config, each.request
        if request.temperature is None:
            request = replace(request, temperature=float(own.temperature or 1.0))
        if request.top_p is None:
            request = replace(request, top_p=float(own.top_p or 1.0))
        return replace(each, request=request)

    def _ends(self) -> set[int]:
        ids = self._model.generation_config.eos_token_id
        ends = set(ids) if isinstance(ids, list) else {ids}
        return (ends | {self._tokenizer.eos_token_id}) - {None}

    def _chats(self) -> bool:
        if self._config.template == "auto":
            if self._prompts_in_parts:
                return True
            return self._tokenizer.chat_template is not None
        return self._config.template == "chat"

    def _prompt(self, messages: list[Message]) -> str:
        """Return messages in the model's template, or joined."""
        if self._prompts_in_parts and self._images is not None:
            return self._images.write(messages).text
        plain = "\n\n".join(message_texts(messages)) + "\n\n"
        if not self._chats():
            return plain
        messages = [{"role": m["role"], "content": "\n".join(message_texts([m]))} for m in messages]
        write = self._tokenizer.apply_chat_template
        try:
            return write(messages, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template that knows no system role raises its own error
            if messages[0]["role"] != "system":
                raise
            logger.debug("chat template: %s; the system text joins the first turn", error)
            joined = "\n\n".join(m["content"] for m in messages[:2])
            merged = [{"role": "user", "content": joined}, *messages[2:]]
            return write(merged, tokenize=False, add_generation_prompt=True)


@dataclass(frozen=True)
class _Ready:
    """A request with its prompt, and the size of that in tokens."""

    pending: PendingRequest
    prompt: WrittenPrompt
    bound: PromptBound


class _OwnStreams(LogitsProcessor):
    """Adds Gumbel noise of each row's own stream: the largest is a sample of softmax(l / T)."""

    def __init__(self, pending: list[PendingRequest]) -> None:
        self._requests = [each.request for each in pending]
        self._streams = []
        for each in pending:
            seed = int(each.content_key.rpartition("-")[2][:15], 16)
            self._streams.append(torch.Generator().manual_seed(seed))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # (B, L), (B, V) -> (B, V)
        rows = []
        for row, request, stream in zip(scores.float(), self._requests, self._streams, strict=True):
            assert request.temperature is not None and request.top_p is not None  # see `_drawn`
            if request.temperature <= 0:
                rows.append(row)
                continue
            row = _nucleus(row / request.temperature, request.top_p)
            uniform = torch.rand(row.shape, generator=stream).clamp_min(1e-20).to(row.device)
            gumbel = -torch.log((-torch.log(uniform)).clamp_min(1e-20))
            rows.append(row + gumbel)
        return torch.stack(rows)


def _nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Return logits `(V,)` with all but the likeliest tokens of share `top_p` at -inf."""
    if top_p >= 1:
        return logits
    ordered, order = logits.sort(descending=True)
    before = ordered.softmax(0).cumsum(0) - ordered.softmax(0)
    dropped = order[before >= top_p]
    return logits.index_fill(0, dropped, float("-inf"))
