"""Calibration of P(accept): after it, of rows scored 0.8 about 80 % are right.

A calibrator is fitted on a validation split and kept as JSON beside the results it was used for.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lavis.common.errors import ConfigError, DataError

Method = Literal["temperature", "isotonic"]
FloatArray = NDArray[np.float64]


def expected_calibration_error(prob: ArrayLike, label: ArrayLike, bins: int = 15) -> float:
    """Return the mean distance of confidence and accuracy over equally wide bins of `prob`.

    Args:
        prob: P(accept), in [0, 1].
        label: 1 is accept.
        bins: a bin holds `(low, high]`; empty bins count nothing (Guo et al., 2017, binary form).
    """
    prob, label = _pair(prob, label)
    index = np.clip(np.ceil(prob * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    gaps = np.abs(
        np.bincount(index, weights=prob, minlength=bins)
        - np.bincount(index, weights=label, minlength=bins)
    )
    return float(gaps[counts > 0].sum() / len(prob))


@dataclass(frozen=True)
class Calibrator:
    """Maps the logit gap `log(p / (1 - p))` of a row to a calibrated probability.

    Attributes:
        method: `temperature` divides the gap by one number and keeps every order and the decision
            at 0.5; `isotonic` is a monotone step curve, for larger validation splits.
        temperature: the divisor.
        knots: `(gap, probability)` points of the isotonic curve, linear between them.
        ece_before, ece_after: on the split it was fitted on.
    """

    method: Method
    temperature: float = 1.0
    knots: tuple[tuple[float, float], ...] = ()
    ece_before: float = float("nan")
    ece_after: float = float("nan")
    num_rows: int = field(default=0)

    @classmethod
    def fit(cls, method: Method, prob: ArrayLike, label: ArrayLike) -> Calibrator:
        """Fit on a validation split.

        Args:
            method: see the class.
            prob: P(accept) of the uncalibrated critic, in [0, 1].
            label: 1 is accept.

        Raises:
            ConfigError: unknown method, or only one class among the labels.
        """
        prob, label = _pair(prob, label)
        if len(np.unique(label)) < 2:
            raise ConfigError("calibration needs rows of both labels; the split has one only")
        gap = _gap(prob)
        if method == "temperature":
            fitted = cls(method, temperature=_fit_temperature(gap, label))
        elif method == "isotonic":
            fitted = cls(method, knots=_fit_isotonic(gap, label))
        else:
            raise ConfigError(f"calibrate: unknown method {method!r}; use temperature or isotonic")
        return cls(
            method,
            temperature=fitted.temperature,
            knots=fitted.knots,
            ece_before=expected_calibration_error(prob, label),
            ece_after=expected_calibration_error(fitted(prob), label),
            num_rows=len(prob),
        )

    def __call__(self, prob: ArrayLike) -> FloatArray:
        """Return calibrated probabilities of uncalibrated ones."""
        gap = _gap(np.asarray(prob, dtype=np.float64))
        if self.method == "temperature":
            return _sigmoid(gap / self.temperature)
        x, y = zip(*self.knots, strict=True)
        return np.interp(gap, x, y)

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        Path(path).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Calibrator:
        """Read what `save` wrote.

        Raises:
            DataError: not such a file.
        """
        try:
            content: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
            content["knots"] = tuple((float(x), float(y)) for x, y in content["knots"])
            return cls(**content)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: not a calibrator's file: {error}") from None


def _fit_temperature(gap: FloatArray, label: FloatArray) -> float:
    import torch

    gaps, labels = torch.from_numpy(gap), torch.from_numpy(label)
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [log_temperature], max_iter=100, line_search_fn="strong_wolfe", tolerance_change=1e-12
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            gaps / log_temperature.exp(), labels
        )
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]  # stubs say float, LBFGS wants the tensor
    # separable splits drive it to 0: a limit keeps scores apart from exactly 0 and 1
    return float(log_temperature.detach().clamp(-3, 3).exp())


def _fit_isotonic(gap: FloatArray, label: FloatArray) -> tuple[tuple[float, float], ...]:
    from sklearn.isotonic import IsotonicRegression

    curve = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(gap, label)
    points = zip(curve.X_thresholds_, curve.y_thresholds_, strict=True)
    return tuple((float(x), float(y)) for x, y in points)


def _pair(prob: ArrayLike, label: ArrayLike) -> tuple[FloatArray, FloatArray]:
    prob, label = (np.asarray(v, dtype=np.float64).reshape(-1) for v in (prob, label))
    if len(prob) != len(label) or not len(prob):
        raise ConfigError(f"{len(prob)} probabilities for {len(label)} labels")
    return prob, label


def _gap(prob: FloatArray) -> FloatArray:
    prob = np.clip(prob, 1e-7, 1 - 1e-7)
    return np.log(prob) - np.log1p(-prob)


def _sigmoid(gap: FloatArray) -> FloatArray:
    return np.exp(-np.logaddexp(0.0, -gap))
