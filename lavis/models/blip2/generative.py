"""BLIP-2 with a language model that reads an image as soft prompts before the text.

Shapes: P images, N texts, Q queries, L tokens, H width of the language model, V its vocabulary.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis.common.checkpoint import LoadReport
from lavis.common.errors import ConfigError
from lavis.common.registry import models
from lavis.models.base import DTYPES, IGNORED
from lavis.models.blip2.base import Blip2Base
from lavis.models.blip2.config import GenerativeConfig
from lavis.models.blip2.language import (
    add_adapters,
    input_ids,
    load_language_model,
    load_padding_tokenizer,
    output_ids,
    pad,
)
from lavis.models.blip2.matching import host_index

ANSWER = "answer:"
# Weights of a Q-Former's text half, which stage-1 files hold and this one lacks.
_TEXT_HALF = re.compile(
    r"^qformer\.(embeddings\.|model\.encoder\.layer\.\d+\.(intermediate|output)\.)"
)


class Blip2Generative(Blip2Base):
    """Frozen tower -> Q-Former -> one linear layer -> frozen language model.

    The Q-Former sees the image only. What is trained: Q-Former, its queries, the linear layer,
    `ln_vision`, and adapters where `model.lora` asks for them.

    Attributes:
        projection, llm_name: what LAVIS calls the linear layer and the language model.
    """

    qformer_reads_text = False
    fresh_keys = ("llm_proj.",)  # a stage-1 file has none
    unused_keys = (
        "Qformer.cls.",
        "lm_head.",
        "temp",
        "vision_proj.",
        "text_proj.",
        "itm_head.",
        "qa_head.",
        "r_head.",
    )
    projection: ClassVar[str]
    llm_name: ClassVar[str]

    def __init__(self, config: GenerativeConfig) -> None:
        super().__init__(config)
        self.config: GenerativeConfig = config
        name, key = config.language_model, config.language_key
        self.llm_tokenizer = load_padding_tokenizer(name, key=key)
        language_model: Any = load_language_model(name, config.llm_precision, key=key)
        self.is_decoder_only = not language_model.config.is_encoder_decoder
        width = language_model.get_input_embeddings().embedding_dim
        if config.lora is not None:
            decoder_only = self.is_decoder_only
            language_model = add_adapters(language_model, config.lora, decoder_only=decoder_only)
        self.language_model: Any = language_model
        self.llm_proj = nn.Linear(config.qformer.hidden_size, width)

    @property
    def uses_every_weight(self) -> bool:
        """See `BaseModel`; the user chooses the layers that get adapters."""
        return self.config.lora is None and super().uses_every_weight

    def train(self, mode: bool = True) -> Blip2Generative:
        """Set the mode; a language model without adapters stays as in evaluation."""
        super().train(mode)
        if self.config.lora is None:
            self.language_model.eval()
        return self

    def forward(self, samples: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return `loss`, the mean cross entropy of the output's tokens, end tokens included.

        Args:
            samples: `image` `(P, 3, S, S)` or `vision_features`, `text_input` and `text_output`
                (N each), `image_index` `(N,)`.
        """
        logits, labels = self.output_logits(samples)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        return {"loss": loss}

    @torch.no_grad()
    def answer_losses(self, samples: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the summed loss of each output, `loss_sum`, over `tokens` tokens, both `(N,)`."""
        logits, labels = self.output_logits(samples)
        losses = F.cross_entropy(
            logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
        )
        return {"loss_sum": losses.sum(dim=1), "tokens": (labels != IGNORED).sum(dim=1)}

    def candidate_likelihood(self, samples: Mapping[str, Any]) -> Tensor:
        """Return the mean log-probability of candidates' tokens, `(N,)`.

        Args:
            samples: as in `forward`; without `text_output`, each text is question and candidate,
                cut behind its last `answer:` (nowhere: all of the text is the candidate).
        """
        if "text_output" not in samples:
            parts = [_cut(text) for text in samples["text_input"]]
            inputs, outputs = zip(*parts, strict=True)
            samples = {**samples, "text_input": inputs, "text_output": outputs}
        losses = self.answer_losses(samples)
        return -losses["loss_sum"] / losses["tokens"]

    def output_logits(self, samples: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Return logits `(N, L, V)`, float32, and labels `(N, L)`, -100 where none is predicted."""
        inputs, outputs = list(samples["text_input"]), list(samples["text_output"])
        prompts = self.soft_prompts(samples, len(inputs))
        pack = self._pack_decoder if self.is_decoder_only else self._pack_encoder_decoder
        with self._language_context():
            return pack(prompts, inputs, outputs)

    def soft_prompts(self, samples: Mapping[str, Any], num_texts: int) -> Tensor:
        """Return each text's image as the language model reads it, `(N, Q, H)`."""
        image_embeds = self.image_embeds(self.vision_features(samples))
        index = host_index(samples.get("image_index"), num_texts, len(image_embeds))
        prompts = self.llm_proj(self.image_pass(image_embeds))
        if index != list(range(len(prompts))):
            prompts = prompts[self.to_device(index)]
        return prompts.to(self._embedding().weight.dtype)

    def _pack_encoder_decoder(
        self, prompts: Tensor, inputs: list[str], outputs: list[str]
    ) -> tuple[Tensor, Tensor]:
        embeds, mask = self._encoder_input(prompts, inputs)
        targets = self._tokenized(outputs, self.config.max_output_txt_len)
        labels = targets["input_ids"].masked_fill(targets["attention_mask"] == 0, IGNORED)
        labels = self.to_device(labels)
        result = self.language_model(
            inputs_embeds=embeds,
            attention_mask=mask,
            decoder_input_ids=self.language_model.prepare_decoder_input_ids_from_labels(labels),
            decoder_attention_mask=self.to_device(targets["attention_mask"]),
            use_cache=False,
        )
        return result.logits.float(), labels

    def _encoder_input(self, prompts: Tensor, inputs: list[str]) -> tuple[Tensor, Tensor]:
        encoded = self._tokenized(inputs, self.config.max_txt_len)
        words = self._embedding()(self.to_device(encoded["input_ids"]))
        mask = F.pad(encoded["attention_mask"], (prompts.shape[1], 0), value=1)
        return torch.cat([prompts, words], dim=1), self.to_device(mask)

    def _tokenized(self, texts: list[str], most: int) -> Any:
        return self.llm_tokenizer(
            texts, padding="longest", truncation=True, max_length=most, return_tensors="pt"
        )

    def _pack_decoder(
        self, prompts: Tensor, inputs: list[str], outputs: list[str]
    ) -> tuple[Tensor, Tensor]:
        """Run `[prompts ; input ; output ; end]`, padded at the right; labels are the last two."""
        config, tokenizer = self.config, self.llm_tokenizer
        rows, targets = [], []
        for text, output in zip(inputs, outputs, strict=True):
            before = input_ids(tokenizer, text, config.max_txt_len)
            after = output_ids(tokenizer, text, output, config.max_output_txt_len)
            rows.append(before + after)
            targets.append([IGNORED] * len(before) + after)
        ids, mask = pad(rows, tokenizer.pad_token_id)
        labels = pad(targets, IGNORED)[0].masked_fill(mask == 0, IGNORED)
        words = self._embedding()(self.to_device(ids))
        queries = prompts.shape[1]
        result = self.language_model(
            inputs_embeds=torch.cat([prompts, words], dim=1),
            attention_mask=self.to_device(F.pad(mask, (queries, 0), value=1)),
            use_cache=False,
        )
        # the row before a token predicts it: the last image row predicts the first token
        return result.logits[:, queries - 1 : -1].float(), self.to_device(labels)

    # Writing

    @torch.no_grad()
    def generate(
        self,
        samples: Mapping[str, Any],
        *,
        use_nucleus_sampling: bool = False,
        num_beams: int = 5,
        max_length: int = 30,
        min_length: int = 1,
        top_p: float = 0.9,
        repetition_penalty: float = 1.0,
        length_penalty: float = 1.0,
        num_captions: int = 1,
        temperature: float = 1.0,
    ) -> list[str]:
        """Return what the language model writes behind each text, N * `num_captions` texts.

        Args:
            samples: as in `forward`, without outputs. `prompt` (a text, or one for each) is read
                instead of `text_input`; without either, the config's `prompt`.
            max_length, min_length: of the output, in tokens.

        Example:
            >>> student.generate({"image": image, "prompt": "Question: what is [0]? Answer:"})
            ['a red cup']
        """
        inputs = self._prompts(samples)
        prompts = self.soft_prompts(samples, len(inputs))
        with self._language_context():
            if self.is_decoder_only:
                embeds, mask = self._decoder_input(prompts, inputs)
            else:
                embeds, mask = self._encoder_input(prompts, inputs)
            written = self.language_model.generate(
                inputs_embeds=embeds,
                attention_mask=mask,
                do_sample=use_nucleus_sampling,
                num_beams=num_beams,
                max_new_tokens=max_length,
                min_new_tokens=min_length,
                repetition_penalty=repetition_penalty,
                num_return_sequences=num_captions,
                pad_token_id=self.llm_tokenizer.pad_token_id,
                synced_gpus=False,  # under FSDP weights are whole here, and ranks' rows unequal
                **({"length_penalty": length_penalty} if num_beams > 1 else {}),
                **({"top_p": top_p, "temperature": temperature} if use_nucleus_sampling else {}),
            )
        texts = self.llm_tokenizer.batch_decode(written, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def predict_answers(
        self,
        samples: Mapping[str, Any],
        *,
        num_beams: int = 5,
        max_len: int = 10,
        min_len: int = 1,
        prompt: str = "",
        length_penalty: float = -1.0,
    ) -> list[str]:
        """Return a short answer to each text.

        Args:
            prompt: read in place of the text, which stands where it has `{}`.
            length_penalty: below 0 favours short answers.
        """
        texts = list(samples["text_input"])
        if prompt:
            texts = [prompt.format(text) for text in texts]
        return self.generate(
            {**samples, "prompt": texts},
            num_beams=num_beams,
            max_length=max_len,
            min_length=min_len,
            length_penalty=length_penalty,
        )

    def _prompts(self, samples: Mapping[str, Any]) -> list[str]:
        texts = samples.get("prompt", samples.get("text_input"))
        if texts is None or isinstance(texts, str):
            images = samples.get("vision_features", samples.get("image"))
            index = samples.get("image_index")
            count = len(images if index is None else index)  # type: ignore[arg-type]
            texts = [self.config.prompt if texts is None else texts] * count
        return list(texts)

    def _decoder_input(self, prompts: Tensor, inputs: list[str]) -> tuple[Tensor, Tensor]:
        """Return `[padding ; prompts ; input]`, so that what is written follows the input."""
        most = self.config.max_txt_len
        rows = [input_ids(self.llm_tokenizer, text, most) for text in inputs]
        table, embeds, masks = self._embedding(), [], []
        longest = max(map(len, rows))
        for prompt, row in zip(prompts, rows, strict=True):
            both = torch.cat([prompt, table(self.to_device(torch.tensor(row, dtype=torch.long)))])
            missing = longest - len(row)
            embeds.append(F.pad(both, (0, 0, missing, 0)))
            masks.append([0] * missing + [1] * len(both))
        return torch.stack(embeds), self.to_device(torch.tensor(masks))

    def _embedding(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def _language_context(self) -> contextlib.AbstractContextManager[Any]:
        """Autocast to the language model's own precision, on a GPU."""
        dtype = DTYPES[self.config.llm_precision]
        if self.device.type != "cuda" or dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast("cuda", dtype=dtype)

    # Weights

    def to_native(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return weights of LAVIS, Hugging Face or our own files under our names."""
        renamed = {}
        for name, value in state.items():
            for theirs, ours in self._names():
                if name.startswith(f"{theirs}."):
                    name = ours + name.removeprefix(theirs)
            renamed[name] = value
        native = super().to_native(renamed)
        if self.config.lora is not None and not any("lora_" in name for name in native):
            prefix = "language_model."
            for name in [name for name in native if name.startswith(prefix)]:
                wrapped = self._adapted(name.removeprefix(prefix))
                native[prefix + wrapped] = native.pop(name)
        return {name: value for name, value in native.items() if not _TEXT_HALF.match(name)}

    def _adapted(self, name: str) -> str:
        """Return the name that a weight of the language model has under peft."""
        own = self.language_model.state_dict()
        module, _, kind = name.rpartition(".")
        for candidate in (
            f"base_model.model.{name}",
            f"base_model.model.{module}.base_layer.{kind}",
        ):
            if candidate in own:
                return candidate
        return name

    def load_state(self, state: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        """See `BaseModel.load_state`; of the adapters all or none must be there."""
        own = {name for name in self.state_dict() if "lora_" in name}
        names = {name for name in self.to_native(state) if "lora_" in name}
        if names and names != own:
            raise ConfigError(
                f"adapters of the checkpoint and of model.lora differ in {len(names ^ own)} weights"
                "; use the model.lora of the run that wrote it"
            )
        return super().load_state(state, *args, **kwargs)

    def _report(self, *args: Any) -> LoadReport:
        """Leave the language model out: it came from its own folder, and its adapters are new."""
        report = super()._report(*args)
        kept = tuple(n for n in report.missing if not n.startswith("language_model."))
        trained = set(kept) & set(report.missing_trainable)
        return replace(report, missing=kept, missing_trainable=tuple(sorted(trained)))

    def full_state_dict(self) -> dict[str, Tensor]:
        """Return all weights in LAVIS's names; of tied ones the first."""
        whole: dict[str, Tensor] = {}
        seen: set[tuple[int, torch.Size]] = set()
        for name, value in self.state_dict().items():
            place = (value.data_ptr(), value.shape)
            if value.numel() == 0 or place not in seen:
                whole[name] = value
            seen.add(place)
        return self._lavis(whole)

    def _lavis(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        renamed = {}
        for name, value in super()._lavis(state).items():
            for theirs, ours in self._names():
                if name.startswith(f"{ours}."):
                    name = theirs + name.removeprefix(ours)
                    break
            renamed[name] = value
        return renamed

    def _names(self) -> tuple[tuple[str, str], ...]:
        return (self.projection, "llm_proj"), (self.llm_name, "language_model")


def _cut(text: str) -> tuple[str, str]:
    end = text.lower().rfind(ANSWER) + len(ANSWER)
    return (text[:end], text[end:].strip()) if end >= len(ANSWER) else ("", text)


@models.register("blip2_t5")
class Blip2T5(Blip2Generative):
    """With an encoder-decoder as Flan-T5."""

    projection, llm_name = "t5_proj", "t5_model"


@models.register("blip2_opt")
class Blip2OPT(Blip2Generative):
    """With OPT."""

    projection, llm_name = "opt_proj", "opt_model"


@models.register("blip2_llm")
class Blip2LLM(Blip2Generative):
    """With any decoder: Vicuna, Llama, Gemma."""

    projection, llm_name = "llm_proj", "llm_model"
