"""The modes: P(yes) from logprobs, a judge's grade, a reranker's score."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lavis.common.errors import ConfigError
from lavis.llm.base import ChatReply, ChatRequest, RankRequest, TokenLogprobs
from lavis.llm.client import ChatClient
from lavis.llm.verdicts.asking import Asker, ImageQuestion, TextVerdict, by_image
from lavis.llm.verdicts.bounds import Over, YesNo, yes_or_no
from lavis.llm.verdicts.config import VerdictConfig
from lavis.llm.verdicts.judging import VerdictError, judge_format, read_grade
from lavis.llm.verdicts.words import VerdictWords, first_word

logger = logging.getLogger(__name__)

_SHOWN = 3  # tokens in a reason


class LogprobAsker(Asker):
    """P(yes) with bounds, from the first word of the answer.

    Args:
        yes, no: words of both verdicts.
        over: what P(yes) is normalised over.
        tokenizer: of the server's model, for `retry: token_ids`.
    """

    def __init__(
        self,
        client: ChatClient,
        config: VerdictConfig,
        yes: VerdictWords,
        no: VerdictWords,
        *,
        over: Over = "sets",
        tokenizer: Any = None,
    ) -> None:
        super().__init__(client, config)
        self._over: Over = over
        self._ids: list[int] = []
        self._yes, self._no = yes, no
        if tokenizer is not None:
            self._yes, yes_ids = yes.in_vocabulary(tokenizer)
            self._no, no_ids = no.in_vocabulary(tokenizer)
            self._ids = sorted({*yes_ids, *no_ids})

    def check_first(self, reply: ChatReply) -> None:
        """Refuse a server that reports no logprobs."""
        if reply.logprobs is None:
            raise ConfigError(
                "llm: the server answers without logprobs, from which P(yes) is taken; use "
                "model.mode=judge (another scale), model.mode=rerank with a reranking model, or "
                "another server (vLLM, llama.cpp and SGLang report them, of OpenAI's models those "
                "that do not think)"
            )

    def verdicts(self, questions: Sequence[ImageQuestion]) -> list[TextVerdict]:
        """See the base class; the columns are the bounds, the mass and the `reason` for them."""
        requests = [
            self.chat(str(place), question, logprobs=self.config.top_logprobs)
            for place, question in enumerate(questions)
        ]
        replies = self.replies(requests)
        read = [self._read(replies[request.key]) for request in requests]
        wide = [place for place, one in enumerate(read) if self._is_wide(one)]
        if self.config.retry is not None and wide:
            seconds = self.replies([self._second(requests[place]) for place in wide])
            for place in wide:
                read[place] = self._better(read[place], seconds[requests[place].key])
        return [one if isinstance(one, TextVerdict) else self._verdict(*one) for one in read]

    def _read(self, reply: ChatReply) -> TextVerdict | tuple[YesNo, str]:
        if not reply.ok:
            return self.failed(reply)
        if reply.logprobs is None:  # others had them: servers behind one address may differ
            return TextVerdict(reject="no logprobs: this answer has none, others had", again=True)
        place = first_word(reply.logprobs)
        if place is None:
            return TextVerdict(reject="no verdict: the logprobs show no word of the answer")
        try:
            found = yes_or_no(place, self._yes, self._no)
        except ValueError as error:
            return TextVerdict(reject=f"malformed logprobs: {error}")
        return found, self._reason(found, place)

    def _reason(self, found: YesNo, place: TokenLogprobs) -> str:
        """Return what makes bounds wide, empty where both verdicts are listed."""
        absent = [name for name, share in (("yes", found.yes), ("no", found.no)) if not share]
        if not absent:
            return ""
        likeliest = sorted(place.top, key=lambda pair: -pair[1])[:_SHOWN]
        tokens = ", ".join(f"{token!r} {math.exp(logprob):.2g}" for token, logprob in likeliest)
        return f"{' and '.join(absent)} not among the {len(place.top)} likeliest tokens ({tokens})"

    def _is_wide(self, one: TextVerdict | tuple[YesNo, str]) -> bool:
        if isinstance(one, TextVerdict):
            return one.reject.startswith("no verdict")
        found = one[0]
        return self._width(found) > self.config.max_width or found.mass < self.config.min_mass

    def _second(self, request: ChatRequest) -> ChatRequest:
        extra = dict(request.extra or {})
        if self.config.retry == "token_ids":
            return replace(request, extra={**extra, "logprob_token_ids": self._ids})
        answer = {"role": "assistant", "content": self.config.prefill}
        extra |= {"continue_final_message": True, "add_generation_prompt": False}
        return replace(request, messages=[*request.messages, answer], extra=extra)

    def _better(
        self, first: TextVerdict | tuple[YesNo, str], reply: ChatReply
    ) -> TextVerdict | tuple[YesNo, str]:
        """Return the second reading of a question, if it says more than the first."""
        second = self._read(reply)
        if isinstance(second, TextVerdict):
            if not second.again:
                return first
            verdict = first if isinstance(first, TextVerdict) else self._verdict(*first)
            return replace(verdict, again=True)
        found, reason = second
        if not isinstance(first, TextVerdict) and not self._is_better(found, first[0]):
            return first
        return found, "; ".join(filter(None, (f"asked again: {self.config.retry}", reason)))

    def _is_better(self, second: YesNo, first: YesNo) -> bool:
        least = self.config.min_mass
        if first.mass < least:
            return second.mass > first.mass
        return second.mass >= least and self._width(second) < self._width(first)

    def _width(self, found: YesNo) -> float:
        low, high = found.interval(self._over)
        return high - low

    def _verdict(self, found: YesNo, reason: str) -> TextVerdict:
        if not found.mass:
            return TextVerdict(reject=f"no verdict: {reason}")
        low, high = found.interval(self._over)
        bounds = {"p_yes_low": low, "p_yes_high": high, "mass": found.mass}
        mass = 1.0 if self._over == "vocabulary" else found.mass
        return TextVerdict(found.score(self._over), mass, {**bounds, "reason": reason})


class JudgeAsker(Asker):
    """Grades from 1 to 5 with a reason; a reply without one is shown to the model once."""

    def __init__(self, client: ChatClient, config: VerdictConfig) -> None:
        super().__init__(client, config)
        self._format = judge_format()

    def check_first(self, reply: ChatReply) -> None:
        """Say that grades are as written, where the server reports no logprobs."""
        if reply.logprobs is None:
            logger.warning(
                "the server answers without logprobs: grades are as the judge writes them, and not "
                "expectations over the digits"
            )

    def verdicts(self, questions: Sequence[ImageQuestion]) -> list[TextVerdict]:
        """See the base class; the columns say that the scale is a judge's, and how it was read."""
        requests = [
            self.chat(
                str(place),
                question,
                response_format=self._format,
                logprobs=self.config.top_logprobs,
            )
            for place, question in enumerate(questions)
        ]
        replies = self.replies(requests)
        found: dict[str, TextVerdict] = {}
        repairs: dict[str, ChatRequest] = {}
        for request in requests:
            reply = replies[request.key]
            found[request.key] = self._read(reply)
            if found[request.key].reject.startswith("bad verdict"):
                repairs[request.key] = self._repair(request, reply, found[request.key].reject)
        for key, reply in self.replies(list(repairs.values())).items():
            second = self._read(reply)
            if second.score is not None:
                found[key] = second
            elif second.again:
                found[key] = replace(found[key], again=True)
        return [found[request.key] for request in requests]

    def _read(self, reply: ChatReply) -> TextVerdict:
        if not reply.ok:
            return self.failed(reply)
        try:
            judgement = read_grade(reply)
        except VerdictError as error:
            return TextVerdict(reject=str(error))
        columns = {
            "scale": "judge",
            "verdict": judgement.verdict,
            "verdict_written": judgement.written,
            "mass": judgement.mass,
            "reason": judgement.reason,
        }
        return TextVerdict(judgement.score, 1.0, columns)

    def _repair(self, request: ChatRequest, reply: ChatReply, problem: str) -> ChatRequest:
        """Return the request that shows a reply beside its fault."""
        advice = (
            f"This cannot be used ({problem}). Write one JSON object with `reason`, then "
            "`verdict`, a whole number from 1 to 5."
        )
        shown = {"role": "assistant", "content": reply.text[: 4 * self.config.reply_tokens]}
        messages = [*request.messages, shown, {"role": "user", "content": advice}]
        return replace(request, messages=messages)


class RankAsker(Asker):
    """Scores of `/rerank` or `/score`: an image with all of its texts in one request."""

    def verdicts(self, questions: Sequence[ImageQuestion]) -> list[TextVerdict]:
        """See the base class; the column says that the scale is a reranker's."""
        config = self.config
        groups = {str(places[0]): places for places in by_image(questions, config.max_documents)}
        requests = [
            RankRequest(
                key,
                [*questions[places[0]].views, {"type": "text", "text": config.query}],
                [questions[place].text for place in places],
                "score" if config.mode == "score" else "rerank",
            )
            for key, places in groups.items()
        ]
        verdicts = [TextVerdict() for _ in questions]
        for key, reply in self.replies(requests).items():
            scores = json.loads(reply.text) if reply.ok else []
            for number, place in enumerate(groups[key]):
                verdicts[place] = self._verdict(scores[number]) if reply.ok else self.failed(reply)
        return verdicts

    def _verdict(self, value: float) -> TextVerdict:
        if self.config.sigmoid:
            value = 1 / (1 + math.exp(-value)) if value > -700 else 0.0
        if not 0 <= value <= 1:
            raise ConfigError(
                f"llm: the server scores a text with {value:g}, and scores lie between 0 and 1; "
                "set model.sigmoid=true, if these are logits"
            )
        return TextVerdict(value, 1.0, {"scale": self.config.mode})
