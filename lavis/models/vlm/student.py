"""A vision-language model as student: adapters are trained to answer questions about regions.

Shapes: N texts, P images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lavis.common.errors import RecordError
from lavis.common.registry import models
from lavis.models.vlm.branches import TokenRow
from lavis.models.vlm.config import VlmStudentConfig
from lavis.models.vlm.critic import VlmCritic
from lavis.models.vlm.lessons import lesson_logits, mean_loss


@models.register("vlm_student")
class VlmStudent(VlmCritic):
    """Any `AutoModelForImageTextToText`, trained on answers in the form of its chat template.

    Samples are a `VlmCritic`'s; `text_output`, N texts, are the answers (absent: those of `parts`).
    An answer is a whole turn, closed by the template's end token.
    """

    config: VlmStudentConfig

    def forward(self, samples: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return `loss` `()`, the mean cross entropy of the answers' T tokens, of logits `(T, V)`.

        Ends of answers count. Texts that cannot be used are left out, and logged; a batch without
        any has loss 0.
        """
        lessons = self.lessons(samples, self.answer_prompt, self.answers(samples))
        return {"loss": mean_loss(*lesson_logits(self, lessons))}

    def answers(self, samples: Mapping[str, Any]) -> list[str]:
        """Return the answer to each text."""
        return list(samples.get("text_output") or super().answers(samples))

    def answer_tokens(self, prompt: str, text: str) -> list[int]:
        """See `VlmModel`; closed, and cut to `model.max_output_txt_len`."""
        return self.encoder.answer(prompt, text, self.config.max_output_txt_len)

    def recipe_parts(self) -> dict[str, Any]:
        """Return what `VlmCritic` names, and where answers are cut."""
        return {**super().recipe_parts(), "max_output_txt_len": self.config.max_output_txt_len}

    @torch.no_grad()
    def generate(
        self,
        samples: Mapping[str, Any],
        *,
        use_nucleus_sampling: bool = False,
        num_beams: int = 1,
        max_length: int = 64,
        min_length: int = 1,
        top_p: float = 0.9,
        repetition_penalty: float = 1.0,
        length_penalty: float = 1.0,
        temperature: float = 1.0,
    ) -> list[str]:
        """Return an answer to each text; '' where it cannot be asked (`answer_losses` says why).

        Args:
            samples: as in `forward`, without answers.
            max_length, min_length: of the answer, in tokens.

        Example:
            >>> student.generate({"views": [[image]], "parts": [{"question": "What is [0]?"}]})
            ['a red cup']
        """
        options: dict[str, Any] = {
            "do_sample": use_nucleus_sampling,
            "num_beams": num_beams,
            "max_new_tokens": max_length,
            "min_new_tokens": min_length,
            "repetition_penalty": repetition_penalty,
            "eos_token_id": self.encoder.stops,
            "synced_gpus": False,  # under FSDP weights are whole here, and ranks write unequal rows
            **({"length_penalty": length_penalty} if num_beams > 1 else {}),
            **({"top_p": top_p, "temperature": temperature} if use_nucleus_sampling else {}),
        }
        notes, places, prompts = self._prompts(samples, self.answer_prompt)
        written = [""] * len(notes)
        most = self.config.max_texts_per_pass if self.family.is_known else 1
        refused: dict[int, RecordError] = {}
        for own, _, encoded in self.encoded(samples["views"], prompts, refused):
            rows = [TokenRow(encoded, at, places[number]) for at, number in enumerate(own)]
            for start in range(0, len(rows), most):
                part = rows[start : start + most]
                for row, text in zip(part, self._write(part, options), strict=True):
                    written[row.place] = text
        return written

    def _write(self, rows: list[TokenRow], options: Mapping[str, Any]) -> list[str]:
        """Return what follows prompts about one image."""
        inputs = self.reader.inputs(rows, left=True)
        with torch.autocast(self.device.type, enabled=False):
            tokens: Tensor = self.vlm.generate(**inputs, **options, pad_token_id=self.reader.pad)
        read = inputs["input_ids"]
        length = read.shape[1]
        if tokens.shape[1] >= length and torch.equal(tokens[:, :length], read):
            tokens = tokens[:, length:]
        texts = self.processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in texts]
