"""Verdicts of a judge: a reason, then a whole number from 1 to 5, as structured output.

The reason stands before the verdict, so that the verdict can follow from it. Where the server
reports logprobs, the expectation over the five digits is taken in place of the one written.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from lavis.llm.base import ChatReply, TokenLogprobs
from lavis.llm.replies.json_reading import JsonObject, Scalar, scan_json
from lavis.llm.replies.logprobs import plain_token
from lavis.llm.replies.refusal import is_refusal

GRADES = (1, 2, 3, 4, 5)
_LEAST_MASS = 0.5  # of the digits; below, the token is not the verdict's
_KEY = re.compile(r"""["'“”]?verdict["'“”]?\s*:\s*["'“”]?""", re.IGNORECASE)
_GRADE = re.compile(r"\s*([+-]?\d+)(?:\.0+)?(?:\s*(?:/|out of)\s*5)?\s*")
_SHOWN = 80  # characters of a bad verdict
_DIGIT = re.compile(r"[\s:\"'“”]*([1-5])[\s\"'“”,}]*")


class VerdictError(ValueError):
    """A judge's reply without a verdict; the message begins with a fixed phrase and a colon."""


@dataclass(frozen=True, slots=True)
class GradedReply:
    """A judge's verdict.

    Attributes:
        written: the grade in the reply.
        verdict: the expectation over grades, or the one written.
        mass: probability of the five grades; None where the one written was taken.
        reason: in the judge's words.
    """

    written: int
    verdict: float
    mass: float | None
    reason: str

    @property
    def score(self) -> float:
        """The verdict from 0 to 1. It is not the probability of anything."""
        return (self.verdict - GRADES[0]) / (GRADES[-1] - GRADES[0])


def judge_format() -> dict[str, Any]:
    """Return the response format of a judge's reply."""
    schema = {
        "type": "object",
        "properties": {
            "reason": {"type": "string"},
            "verdict": {"type": "integer", "enum": list(GRADES)},
        },
        "required": ["reason", "verdict"],
        "additionalProperties": False,
    }
    form = {"name": "verdict", "strict": True, "schema": schema}
    return {"type": "json_schema", "json_schema": form}


def read_grade(reply: ChatReply) -> GradedReply:
    """Return the verdict of a reply; raises `VerdictError` where it has none, or several."""
    scan = scan_json(reply.text)
    roots = [root for root in scan.roots if isinstance(root, JsonObject)]
    values = [(root, value) for root in roots for value in root.all("verdict")]
    grades = {_grade(value) for _, value in values}
    if len(grades) > 1:
        raise VerdictError(f"bad verdict: several, {', '.join(map(str, sorted(grades)))}")
    if not grades:
        if reply.is_cut or scan.is_cut:
            raise VerdictError("cut off: max_tokens was used up before the verdict; raise it")
        if is_refusal(reply.text):
            raise VerdictError(f"refusal: {' '.join(reply.text.split())[:_SHOWN]}")
        raise VerdictError(f"bad verdict: none in {' '.join(reply.text.split())[:_SHOWN]!r}")
    (written,) = grades
    reasons = [text for text in values[0][0].all("reason") if isinstance(text, str)]
    verdict, mass = _expectation(reply.logprobs or (), written)
    return GradedReply(written, verdict, mass, " ".join("".join(reasons[:1]).split()))


def _grade(value: Any) -> int:
    text = value.text if isinstance(value, Scalar) else value
    match = _GRADE.fullmatch(text) if isinstance(text, str) else None
    grade = int(match[1]) if match is not None and len(match[1]) < 4 else 0
    if grade not in GRADES:
        shown = text if isinstance(text, str) else "no number"
        raise VerdictError(f"bad verdict: {shown[:_SHOWN]!r}, no whole number from 1 to 5")
    return grade


def _expectation(logprobs: tuple[TokenLogprobs, ...], written: int) -> tuple[float, float | None]:
    """Return the expected grade and the grades' probability; the written one if not reported."""
    texts = [plain_token(each.token) for each in logprobs]
    joined = "".join(texts)
    keys = list(_KEY.finditer(joined))
    if not keys:
        return float(written), None
    end = 0
    for place, text in zip(logprobs, texts, strict=True):
        end += len(text)
        if end <= keys[-1].end():
            continue
        digit = _DIGIT.fullmatch(text)
        if digit is None or int(digit[1]) != written:
            break
        shares: dict[int, float] = {}
        for token, logprob in place.top or ((place.token, place.logprob),):
            match = _DIGIT.fullmatch(plain_token(token))
            if match is not None:
                grade = int(match[1])
                shares[grade] = shares.get(grade, 0.0) + math.exp(logprob)
        mass = math.fsum(shares.values())
        if mass >= _LEAST_MASS:
            expected = math.fsum(grade * share for grade, share in shares.items()) / mass
            return expected, min(1.0, mass)
        break
    return float(written), None
