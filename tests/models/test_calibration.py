"""Calibration error by hand, and calibrators that bring it down."""

import numpy as np
import pytest

from lavis.common.errors import ConfigError, DataError
from lavis.models.calibration import Calibrator, expected_calibration_error


def overconfident(size=4000):
    """Labels drawn with the probability of half the logit the critic reports."""
    rng = np.random.default_rng(0)
    gap = rng.normal(0, 4, size)
    label = (rng.random(size) < 1 / (1 + np.exp(-gap / 2))).astype(int)
    return 1 / (1 + np.exp(-gap)), label


def test_error_by_hand():
    # bins (0, .5], (.5, 1]: |.2 + .4 - 1| = .4 and |.9 + .7 - 2| = .4, over 4 rows
    assert expected_calibration_error([0.2, 0.4, 0.9, 0.7], [0, 1, 1, 1], bins=2) == pytest.approx(
        0.2
    )
    assert expected_calibration_error([0.0, 1.0], [0, 1]) == 0


def test_temperature_is_found_and_keeps_the_order():
    prob, label = overconfident()
    calibrator = Calibrator.fit("temperature", prob, label)
    assert calibrator.temperature == pytest.approx(2.0, abs=0.15)
    assert calibrator.ece_before > 0.08 and calibrator.ece_after < 0.03
    assert calibrator.num_rows == 4000
    fitted = calibrator(prob)
    assert np.all(np.diff(fitted[np.argsort(prob)]) >= 0)
    assert np.array_equal(fitted > 0.5, prob > 0.5)


def test_isotonic_is_monotone_and_better():
    prob, label = overconfident()
    calibrator = Calibrator.fit("isotonic", prob, label)
    assert calibrator.ece_after < 0.02
    assert np.all(np.diff(calibrator(np.linspace(0, 1, 50))) >= 0)


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_files_round_trip(tmp_path, method):
    prob, label = overconfident(200)
    calibrator = Calibrator.fit(method, prob, label)
    calibrator.save(tmp_path / "calibrator.json")
    assert Calibrator.load(tmp_path / "calibrator.json") == calibrator


def test_what_cannot_be_fitted_or_read(tmp_path):
    with pytest.raises(ConfigError, match="rows of both labels"):
        Calibrator.fit("temperature", [0.2, 0.3], [1, 1])
    with pytest.raises(ConfigError, match="unknown method 'platt'"):
        Calibrator.fit("platt", [0.2, 0.3], [1, 0])
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(DataError, match=r"x\.json: not a calibrator"):
        Calibrator.load(tmp_path / "x.json")


def test_separable_split_does_not_run_away():
    calibrator = Calibrator.fit("temperature", [0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1])
    assert 0 < calibrator(0.9) < 1
