"""Any causal language model of transformers on this machine, several prompts at a time.

Each request has its own random stream, seeded by its content: its reply depends neither on the
others in the batch nor on a restart.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LogitsProcessor, LogitsProcessorList

from lavis.common.dist import pick_device
from lavis.common.pretrained import Specials, load_pretrained, load_tokenizer
from lavis.common.registry import llms
from lavis.llm.base import ChatReply, Message, PendingRequest, image_parts, message_texts
from lavis.llm.config import TransformersConfig
from lavis.llm.money.budget import BudgetReached
from lavis.llm.replies.completion import no_answer
from lavis.llm.replies.reasoning import answer_text, open_mark
from lavis.llm.store import BackendContext

logger = logging.getLogger(__name__)


@llms.register("transformers")
class TransformersBackend:
    """Generates for `batch_size` prompts at once."""

    keeps_replies: ClassVar[bool] = True
    config_class: ClassVar[type[TransformersConfig]] = TransformersConfig

    def __init__(self, config: TransformersConfig, context: BackendContext) -> None:
        self._config, self._context = config, context
        files = {"revision": config.revision, "gguf_file": config.gguf_file}
        where: dict[str, Any] = {k: v for k, v in files.items() if v is not None}
        self._tokenizer: Any = load_tokenizer(config.model, "model", padding_side="left", **where)
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._specials = Specials.of(self._tokenizer)
        model: Any = load_pretrained(
            AutoModelForCausalLM,
            config.model,
            refusal=f"model: cannot load '{config.model}'",
            dtype=config.dtype,
            **where,
        )
        self._model = model.to(pick_device(config.device)).eval()
        self._pending: list[PendingRequest] = []
        self.window = config.batch_size

    @classmethod
    def build(cls, config: TransformersConfig, context: BackendContext) -> TransformersBackend:
        """Return the backend, its model loaded."""
        return cls(config, context)

    def submit(self, each: PendingRequest) -> None:
        """Take one request."""
        self._pending.append(each)

    def collect(self) -> list[ChatReply]:
        """Generate for the submitted requests, as many at once as the caps allow.

        Those that a cap blocks wait for the next call: by then the rest is settled.
        """
        pending, self._pending = self._pending, []
        replies, ready = [], []
        for place, each in enumerate(pending):
            if image_parts(each.request.messages):
                reason = "the local language model reads no images"
                replies.append(ChatReply(each.content_key, error=reason, failure="refused"))
                continue
            try:
                bound, most = self._context.counter.bound(each.request), each.request.max_tokens
                if not self._context.account.reserve(each.content_key, bound, most, wait=False):
                    self._pending = pending[place:]
                    break
                ready.append(each)
            except BudgetReached as error:
                replies.append(ChatReply(each.content_key, error=str(error), failure="budget"))
        return replies + (self._generate(ready) if ready else [])

    def close(self) -> None:
        """Nothing is held."""

    @torch.inference_mode()
    def _generate(self, pending: list[PendingRequest]) -> list[ChatReply]:
        texts = [self._prompt(list(each.request.messages)) for each in pending]
        templated = self._chats()
        # an end token behind a prompt would be what the model goes on from
        opening = [] if templated else list(self._specials.opening)
        rows = [opening + self._tokenizer.encode(text, add_special_tokens=False) for text in texts]
        inputs = self._tokenizer.pad({"input_ids": rows}, return_tensors="pt").to(
            self._model.device
        )
        inputs.pop("token_type_ids", None)
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
        new = output[:, inputs["input_ids"].shape[1] :]
        lengths = inputs["attention_mask"].sum(1).tolist()
        return [self._reply(*row) for row in zip(pending, texts, new, lengths, strict=True)]

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
            return self._tokenizer.chat_template is not None
        return self._config.template == "chat"

    def _prompt(self, messages: list[Message]) -> str:
        """Return messages in the model's template, or joined."""
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
