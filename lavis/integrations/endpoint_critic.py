"""A critic behind an endpoint: the same task, journal and reports as for one with weights.

Shapes: N texts, P images.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lavis.common.dist import World
from lavis.common.errors import ConfigError, RunError
from lavis.common.pretrained import load_pretrained
from lavis.common.registry import models
from lavis.integrations.endpoint_config import EndpointCriticConfig
from lavis.integrations.endpoint_trace import trace_stored
from lavis.llm.base import Part, image_part
from lavis.llm.client import ChatClient, build_client
from lavis.llm.config import CapsConfig, OpenAIConfig
from lavis.llm.endpoint.wire import Connection
from lavis.llm.money.budget import BudgetReached
from lavis.llm.money.ledger import open_ledger
from lavis.llm.verdicts.asking import Asker, ImageQuestion, TextVerdict
from lavis.llm.verdicts.modes import JudgeAsker, LogprobAsker, RankAsker
from lavis.llm.verdicts.words import VerdictWords
from lavis.models.base import BaseModel
from lavis.models.blip2.matching import host_index
from lavis.models.vlm.prompts import Prompt

logger = logging.getLogger(__name__)

_PARTS = ("question", "answer", "rationale", "text")
_TINY = 1e-30  # in place of a probability of 0, whose logarithm is no number


@models.register("endpoint_critic")
class EndpointCritic(BaseModel):
    """Verdicts on texts about images by a server's model; it has no weights.

    Samples are those of `vlm_critic`: `views`, `region_words`, `image_index`, `parts`.

    Example:
        >>> critic = EndpointCritic.from_config(EndpointCriticConfig(llm=llm, mode="logprobs"))
        >>> with critic.scoring(Path("output/scored"), world):  # spends from its ledger
        ...     scores = critic.predict({"views": [[image]], "parts": parts})["prediction"][:, 1]
    """

    def __init__(self, config: EndpointCriticConfig) -> None:
        super().__init__(config)
        self.config: EndpointCriticConfig = config
        self.prompt = Prompt(config.prompt_name)
        verdict = self.prompt.verdict
        spellings = config.spellings or verdict.spellings
        self.yes_words = VerdictWords.of(config.yes_words or verdict.yes_words, spellings)
        self.no_words = VerdictWords.of(config.no_words or verdict.no_words, spellings)
        if self.yes_words.words & self.no_words.words:
            raise ConfigError("model.yes_words and model.no_words share a word; use others")
        self._asker: Asker | None = None

    def load_from_config(self) -> None:
        """Raise `ConfigError` where the server cannot be called: no key, no SDK."""
        if isinstance(self.config.llm, OpenAIConfig):
            with _own_keys():
                Connection(self.config.llm).sdk.close()

    @property
    def device(self) -> torch.device:
        """The CPU: there is nothing to compute."""
        return torch.device("cpu")

    def scoring_identity(self) -> dict[str, Any]:
        """Return what scores depend on; caps, prices and the server's address may change."""
        return self.config.identity()

    @contextmanager
    def scoring(self, folder: Path, world: World) -> Iterator[None]:
        """Hold a client that spends from the output folder's ledger.

        Raises:
            ConfigError: another process spends from it; or caps, which hold for one process, and
                several processes.
        """
        llm = self.config.llm
        if world.size > 1 and llm.caps != CapsConfig():
            raise ConfigError(
                f"model.llm.caps hold for one process, and there are {world.size}; start one (a "
                "client sends many requests at once, see model.llm.concurrency), or leave the caps "
                "out"
            )
        with ExitStack() as stack:
            ledger = stack.enter_context(open_ledger(folder, rank=world.rank))
            place = folder / "clients" / "critic" / f"rank{world.rank}"
            with _own_keys():
                client = stack.enter_context(build_client(llm, place, ledger))
                self._asker = self.make_asker(client)
            before = client.spent()
            try:
                yield
            finally:
                self._asker = None
                spent = client.spent() - before
                logger.info(
                    "%s: %d requests sent, %d tokens, cost %.4g; %d replies were there before",
                    *(llm.model, spent.requests, spent.tokens, spent.cost, client.cached),
                )

    def predict(self, samples: Mapping[str, Any]) -> dict[str, Any]:
        """Return the verdict on every text.

        Returns:
            `prediction` `(N, 2)`: 1 - score and score, NaN where there is none. `logits` `(N, 2)`:
            their logarithms. `notes`: N mappings, see `TextVerdict.note`.

        Raises:
            ConfigError: no text can be scored until a setting is mended.
            RunError: or until a cap, an account or the server is.
        """
        if self._asker is None:
            raise ConfigError("EndpointCritic: score inside `with critic.scoring(folder, world)`")
        questions = self.questions(samples)
        try:
            with _own_keys():
                verdicts = self._asker.verdicts(questions)
        except BudgetReached as error:
            raise RunError(
                f"not complete: model.llm.caps: {error}; start again with a higher cap to go on"
            ) from None
        scores = torch.tensor([_number(each) for each in verdicts], dtype=torch.float64)  # (N,)
        prediction = torch.stack([1 - scores, scores], dim=1)  # (N, 2)
        logits = prediction.clamp(min=_TINY).log()
        notes = [_note(each) for each in verdicts]
        return {"prediction": prediction.float(), "logits": logits.float(), "notes": notes}

    def forward(self, samples: Mapping[str, Any]) -> dict[str, Tensor]:
        """Refuse: views `(3, H, W)` go to a server, and nothing there can be trained."""
        raise ConfigError("model.arch: endpoint_critic cannot be trained; use evaluate.py")

    def get_optimizer_params(
        self, weight_decay: float, lr_layer_decay: float = 1.0
    ) -> list[dict[str, Any]]:
        """Refuse, before a training begins."""
        raise ConfigError("model.arch: endpoint_critic cannot be trained; use evaluate.py")

    @classmethod
    def for_dry_run(cls, config: EndpointCriticConfig) -> EndpointCritic:
        """Return a critic that counts what it would send, and sends nothing."""
        from lavis.integrations.endpoint_dry_run import DryEndpointCritic  # which is one of these

        return DryEndpointCritic(config)

    def trace(self, samples: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return how each verdict came about, by the stored replies; see `trace_stored`."""
        return trace_stored(self, samples)

    def make_asker(self, client: ChatClient) -> Asker:
        """Return what asks a client for verdicts, in the mode of the config."""
        config = self.config
        if config.mode == "judge":
            return JudgeAsker(client, config)
        if config.mode != "logprobs":
            return RankAsker(client, config)
        tokenizer = None
        if config.retry == "token_ids":
            from transformers import AutoTokenizer

            name = config.llm.tokenizer
            refusal = f"model.llm.tokenizer: cannot load '{name}'"
            tokenizer = load_pretrained(AutoTokenizer, name, refusal=refusal)
        over = config.over or self.prompt.verdict.over
        return LogprobAsker(
            client, config, self.yes_words, self.no_words, over=over, tokenizer=tokenizer
        )

    def questions(self, samples: Mapping[str, Any]) -> list[ImageQuestion]:
        """Return a question for each text, images as they are sent."""
        views, parts = samples.get("views"), samples.get("parts")
        if views is None or parts is None:
            raise ConfigError(
                "endpoint_critic is shown images as they are: set the data set's vis_processor to "
                "{eval: {name: vlm_image}}"
            )
        words: Sequence[Sequence[str]] = samples.get("region_words") or [()] * len(views)
        shown = [[self._part(view) for view in image] for image in views]
        index = host_index(samples.get("image_index"), len(parts), len(views))
        return [
            ImageQuestion(
                image, shown[image], _sendable(self.prompt.render(_values(part, words[image])))
            )
            for part, image in zip(parts, index, strict=True)
        ]

    def _part(self, view: Tensor) -> Part:
        """Return a view `(3, H, W)` uint8 as a part of a message."""
        image = Image.fromarray(view.permute(1, 2, 0).contiguous().cpu().numpy())
        buffer = io.BytesIO()
        if self.config.image_format == "png":
            image.save(buffer, "PNG")
        else:
            image.save(buffer, "JPEG", quality=self.config.jpeg_quality, subsampling=0)
        return image_part(buffer.getvalue())


def _values(part: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """Return a template's variables for one text."""
    texts = {name: str(part.get(name) or "") for name in _PARTS}
    return {**texts, "regions": [{"number": n, "words": word} for n, word in enumerate(words)]}


def _sendable(text: str) -> str:
    """Return a text without halves of surrogate pairs, which UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode()


def _number(verdict: TextVerdict) -> float:
    return float("nan") if verdict.score is None else verdict.score


def _note(verdict: TextVerdict) -> dict[str, Any]:
    """Return a verdict's note, its bounds around the score as float32 has it."""
    note = verdict.note()
    if verdict.score is not None and "p_yes_low" in note:
        score = torch.tensor(verdict.score, dtype=torch.float32).item()
        note["p_yes_low"] = min(note["p_yes_low"], score)
        note["p_yes_high"] = max(note["p_yes_high"], score)
    return note


@contextmanager
def _own_keys() -> Iterator[None]:
    """Name options in errors as they stand here, `model.llm.caps` in place of `llm.caps`."""
    try:
        yield
    except (ConfigError, RunError) as error:
        text = re.sub(r"(?<![\w./])llm(?=[.:])", "model.llm", str(error))
        raise type(error)(text) from None
