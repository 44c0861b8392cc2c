"""A vision-language model as critic: the probability that it answers yes, and of given answers.

Shapes: N texts, P images, O options of a question.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lavis.common.errors import ConfigError, RecordError
from lavis.common.registry import models
from lavis.models.base import IGNORED
from lavis.models.blip2.matching import host_index
from lavis.models.vlm.config import VlmCriticConfig
from lavis.models.vlm.lessons import Lesson, fill_up, log_rejects, make_lessons, mean_loss
from lavis.models.vlm.model import ImagePrompt, Views, VlmModel
from lavis.models.vlm.model_images import model_images
from lavis.models.vlm.prompts import Prompt
from lavis.models.vlm.words import check_apart, token_set

_PARTS = ("question", "answer", "rationale", "text")
_FAILED = float("nan")


@models.register("vlm_critic")
class VlmCritic(VlmModel):
    """Any `AutoModelForImageTextToText`, asked yes or no, for an answer, or for a letter.

    Samples hold `views` (P lists of uint8 `(3, H, W)`), `region_words` (P lists of words, one per
    region; absent: none), `image_index` `(N,)` (absent: text i is about image i), and `parts`: N
    mappings with `question`, `answer`, `rationale`, `text`.

    Attributes:
        yes, no: the tokens of both verdicts.
        over: what P(yes) is normalised over.
    """

    def __init__(self, config: VlmCriticConfig) -> None:
        self.prompt = Prompt(config.prompt)
        self.answer_prompt = Prompt(config.answer_prompt)
        self.letter_prompt = Prompt(config.letter_prompt)
        verdict = self.prompt.verdict
        self._words = (config.yes_words or verdict.yes_words, config.no_words or verdict.no_words)
        self._spellings = config.spellings or verdict.spellings
        self.over = config.over or verdict.over
        super().__init__(config)
        self.config: VlmCriticConfig = config
        tokenizer = self.processor.tokenizer
        self.yes = token_set(tokenizer, self._words[0], self._spellings, "model.yes_words")
        self.no = token_set(tokenizer, self._words[1], self._spellings, "model.no_words")
        check_apart(self.yes, self.no)

    @classmethod
    def for_dry_run(cls, config: VlmCriticConfig) -> VlmCritic:
        """Return a critic that counts the tokens it would read; it loads no weights."""
        from lavis.models.vlm.dry_run import DryVlmCritic  # which is one of these

        return DryVlmCritic(config)

    def forward(self, samples: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return `loss` `()`, the mean cross entropy of verdicts `(N, 2)` with `label` `(N,)`.

        Label 1 stands for yes. Texts that cannot be asked are left out, and logged.
        """
        if "label" not in samples:
            raise ConfigError(
                "model.arch: vlm_critic is trained on labels, as those of "
                "datasets.unified_vqa_binary; use vlm_student for answers"
            )
        lessons = self.lessons(samples, self.prompt)
        logits = self.training_logits([lesson.row for lesson in lessons])
        ids = [*self.no.tokens, *self.yes.tokens]
        last = torch.stack([one[-1] for one in logits]).float()  # (N, V)
        verdicts, _ = self._verdicts(last.log_softmax(dim=1)[:, ids])
        labels = samples["label"].tolist()
        target = [IGNORED if one.is_blank else labels[one.row.place] for one in lessons]
        return {"loss": mean_loss(verdicts, torch.tensor(target, device=self.device))}

    @torch.no_grad()
    def predict(self, samples: Mapping[str, Any]) -> dict[str, Any]:
        """Return the verdict on every text.

        Returns:
            `prediction` `(N, 2)`: P(no) and P(yes), the summed probabilities of the tokens of
            either among those of both (`over: vocabulary`: 1 - P(yes), and of yes as they are).
            `logits` `(N, 2)`: their logarithms, which also tell those near 1 apart. `notes`: N
            mappings; `mass` is P(yes or no) of the whole vocabulary, and `reject` says why a text
            has no score; its numbers are NaN.

        Example:
            >>> parts = [{"question": "what is [0]?", "answer": "a cup"}]
            >>> critic.predict({"views": [[image]], "parts": parts})["prediction"][:, 1]
            tensor([0.94])
        """
        notes, places, prompts = self._prompts(samples, self.prompt)
        ids = [*self.no.tokens, *self.yes.tokens]
        refused: dict[int, RecordError] = {}
        scores = self.next_token(samples["views"], prompts, ids, refused)  # (n, K)
        verdicts, mass = self._verdicts(scores)
        for place, share in zip(places, mass.tolist(), strict=True):
            notes[place]["mass"] = share
        _reject(notes, places, refused)
        logits = torch.full((len(notes), 2), _FAILED, device=self.device)
        logits[places] = verdicts
        return {"prediction": logits.softmax(dim=1), "logits": logits, "notes": notes}

    @torch.no_grad()
    def answer_losses(self, samples: Mapping[str, Any]) -> dict[str, Any]:
        """Return `loss_sum` `(N,)`, minus the log-likelihood of each answer, its `tokens` `(N,)`.

        The answer follows the reply's beginning, asked for by `model.answer_prompt`. `notes` are as
        `predict`'s.
        """
        notes, places, prompts = self._prompts(samples, self.answer_prompt)
        wanted = self.answers(samples)
        answers = [wanted[place] for place in places]
        refused: dict[int, RecordError] = {}
        losses = torch.full((len(notes),), _FAILED, device=self.device)
        tokens = torch.zeros(len(notes), dtype=torch.long, device=self.device)
        losses[places], tokens[places] = self.continuation_losses(
            samples["views"], prompts, answers, refused
        )
        _reject(notes, places, refused)
        return {"loss_sum": losses, "tokens": tokens, "notes": notes}

    @torch.no_grad()
    def letters(self, samples: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the model says of lettered options.

        Args:
            samples: `parts` also hold `options`, O texts each, in the order they are shown.

        Returns:
            `log_probs` `(N, O)`, of the letter with and without a blank in front, summed, over the
            whole vocabulary; -inf behind a question's last option. `notes` are as `predict`'s.
        """
        parts = samples["parts"]
        most = max(len(part["options"]) for part in parts)
        sets = [
            token_set(self.processor.tokenizer, (letter,), "spaced", "letters").tokens
            for letter in string.ascii_uppercase[:most]
        ]
        notes, places, prompts = self._prompts(samples, self.letter_prompt)
        refused: dict[int, RecordError] = {}
        ids = [token for tokens in sets for token in tokens]
        scores = self.next_token(samples["views"], prompts, ids, refused)
        columns = [part.logsumexp(dim=1) for part in scores.split(list(map(len, sets)), dim=1)]
        result = torch.full((len(parts), most), _FAILED, device=self.device)
        result[places] = torch.stack(columns, dim=1)
        for place in places:
            result[place, len(parts[place]["options"]) :] = float("-inf")
        _reject(notes, places, refused)
        return {"log_probs": result, "notes": notes}

    @torch.no_grad()
    def trace(self, samples: Mapping[str, Any], top: int = 10) -> list[dict[str, Any]]:
        """Return how each verdict of `predict` comes about, for people to read.

        Each text is read alone: its numbers may differ from those of a batch in the last bits, in
        16-bit models in the third digit.

        Args:
            top: likeliest tokens that are listed.

        Returns:
            N mappings: `prompt` as it is written, before images take the place of their marks;
            `tokens` of it, images included; `top`, `yes` and `no`, lists of (token, probability in
            the whole vocabulary); `score`, P(yes); `images`, uint8 `(3, H, W)` as the model sees
            them, empty where its input cannot be shown. Or `reject`, why there is no verdict.
        """
        notes, places, prompts = self._prompts(samples, self.prompt)
        for place, prompt in zip(places, prompts, strict=True):
            try:
                notes[place] = self._traced(samples["views"], prompt, top)
            except RecordError as error:
                notes[place]["reject"] = error.reason
        return notes

    def _traced(self, views: Views, prompt: ImagePrompt, top: int) -> dict[str, Any]:
        text, encoded, log_probs = self.read(views, prompt)
        likely = log_probs.topk(min(top, len(log_probs)))
        ids, shares = likely.indices.tolist(), likely.values.exp().tolist()
        pieces = self.processor.tokenizer.convert_ids_to_tokens(ids)
        sets = {
            name: list(zip(one.pieces, log_probs[list(one.tokens)].exp().tolist(), strict=True))
            for name, one in (("yes", self.yes), ("no", self.no))
        }
        yes, no = (sum(share for _, share in sets[name]) for name in ("yes", "no"))
        return {
            "prompt": text,
            "tokens": len(encoded.ids[0]),
            "top": [  # an output layer may be larger than the vocabulary
                (f"token {token}" if piece is None else piece, share)
                for token, piece, share in zip(ids, pieces, shares, strict=True)
            ],
            **sets,
            "score": yes if self.over == "vocabulary" else yes / (yes + no),
            "images": model_images(encoded.vision, self.processor.image_processor),
        }

    def answers(self, samples: Mapping[str, Any]) -> list[str]:
        """Return the answer to each text."""
        return [str(part.get("answer") or "") for part in samples["parts"]]

    def lessons(
        self, samples: Mapping[str, Any], prompt: Prompt, answers: Sequence[str] | None = None
    ) -> list[Lesson]:
        """Return N lessons; see `make_lessons`. What cannot be asked is left out, and logged."""
        notes, places, prompts = self._prompts(samples, prompt)
        made = make_lessons(self, samples["views"], places, prompts, answers)
        log_rejects(note["reject"] for note in notes if note)
        return fill_up(self, made, len(notes))

    def recipe_parts(self) -> dict[str, Any]:
        """Return what `VlmModel` names, the templates, and how replies are read."""
        prompts = (self.prompt, self.answer_prompt, self.letter_prompt)
        read = [self._words, self._spellings, self.over]
        return {**super().recipe_parts(), "prompts": [p.source for p in prompts], "read": read}

    def _verdicts(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Return `(n, 2)` logarithms of P(no) and P(yes), and P(yes or no) `(n,)`.

        Args:
            scores: `(n, K)` log-probabilities of the tokens of no, and then those of yes.
        """
        no = scores[:, : len(self.no.tokens)].logsumexp(dim=1)
        yes = scores[:, len(self.no.tokens) :].logsumexp(dim=1)
        mass = no.exp() + yes.exp()
        if self.over == "vocabulary":
            no = torch.log1p(-yes.exp().clamp(max=1 - 1e-7))
        return F.logsigmoid(torch.stack([no - yes, yes - no], dim=1)), mass

    def _prompts(
        self, samples: Mapping[str, Any], prompt: Prompt
    ) -> tuple[list[dict[str, Any]], list[int], list[ImagePrompt]]:
        """Return a note for every text, places of those that can be asked, and their prompts."""
        parts, views = samples["parts"], samples["views"]
        words: Sequence[Sequence[str]] = samples.get("region_words") or [()] * len(views)
        index = host_index(samples.get("image_index"), len(parts), len(views))
        notes: list[dict[str, Any]] = [{} for _ in parts]
        places, prompts = [], []
        for place, (part, image) in enumerate(zip(parts, index, strict=True)):
            try:
                values = self._values(part, words[image])
            except RecordError as error:
                notes[place]["reject"] = error.reason
                continue
            places.append(place)
            prompts.append(ImagePrompt(image, prompt.render(values)))
        return notes, places, prompts

    def _values(self, part: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
        """Return a template's variables for one text."""
        values: dict[str, Any] = {name: str(part.get(name) or "") for name in _PARTS}
        options = list(part.get("options") or ())
        for text in (*values.values(), *options):
            self.encoder.check_text(text)
        letters = zip(string.ascii_uppercase, options, strict=False)
        return {
            **values,
            "regions": [
                {"number": number, "words": word}
                for number, word in enumerate(words)
                if word != f"[{number}]"  # its number alone says nothing: it is in the image
            ],
            "options": [{"letter": letter, "text": text} for letter, text in letters],
        }


def _reject(
    notes: list[dict[str, Any]], places: Sequence[int], refused: Mapping[int, RecordError]
) -> None:
    """Say in the notes why prompts of some places have no numbers, and nothing else of them."""
    for at, error in refused.items():
        notes[places[at]] = {"reject": error.reason}
