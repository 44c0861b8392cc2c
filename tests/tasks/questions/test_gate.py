"""The gate that leaves out images where the text-only answer is certain."""

import numpy as np
import pytest

from lavis.tasks.questions.gate import skip_when_certain


def test_certain_answers_need_no_images():
    best = np.array([0.2, 0.9, 0.95])
    assert skip_when_certain(best, 0.9).tolist() == [False, True, True]
    assert skip_when_certain(best, None).tolist() == [False] * 3
    rows = np.array([[0.2, 0.8], [0.95, 0.05]])
    assert skip_when_certain(rows, 0.9).tolist() == [False, True]
    assert skip_when_certain(np.zeros(0), 0.5).tolist() == []


def test_values_that_are_no_probabilities_are_refused():
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        skip_when_certain(np.array([0.5]), 1.5)
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        skip_when_certain(np.array([-3.0]), 0.5)
