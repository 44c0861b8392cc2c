"""Log-probabilities become predicted options and marks, by hand."""

from types import SimpleNamespace

import pytest
import torch

from lavis.datasets.benchmarks.question import Question
from lavis.generators.config import ImagesConfig
from lavis.tasks.questions.answers import AnswerRows
from lavis.tasks.questions.config import VisualQuestionsConfig
from lavis.tasks.questions.requests import TextRequest

QUESTION = Question(
    question_id="q", kind="choice", prompts=("ab cd", "ab ef"), gold=1, title="t",
    image_text="x", image_texts=(), options=("cd", "ef"), starts=(3, 3),
)  # fmt: skip
# two tokens are predicted in each option: the context's, which the first row has, and the option's
ROWS = [
    TextRequest(0, 0, (1, 2, 3), ((0, (2,)), (1, (3,))), ends=(2, 5)),
    TextRequest(0, 1, (1, 2, 4), ((1, (4,)),), ends=(2, 5), skipped=1),
]


def rows_of(numbers):
    images = ImagesConfig(generator="folder", scorer=None, num_images=0)
    config = VisualQuestionsConfig(tokenizer="x", images=images, columns=["text"])
    answers = AnswerRows(config, SimpleNamespace(first_only=False))
    outputs = {"log_probs.text": torch.tensor(numbers)[..., None]}
    return answers, answers.payloads([QUESTION], ROWS, outputs)[0], outputs


def test_an_option_is_scored_with_what_the_first_row_has_of_its_context():
    answers, row, outputs = rows_of([[-2.0, -1.0], [-0.5, 0.0]])
    assert row["values"]["text"]["option_likelihood"] == [-1.0, -0.5]
    assert row["values"]["text"]["sequence_loss"] == [-1.5, -1.25]
    assert row["predicted"]["text"]["option_likelihood"] == [1]
    assert row["marks"]["text"]["option_likelihood"] == [1]
    (certainty,) = answers.certainties([QUESTION], ROWS, outputs)
    assert certainty == pytest.approx(1 / (1 + torch.tensor(-0.5).exp().item()))


def test_equal_options_give_the_first_one():
    _, row, _ = rows_of([[-2.0, -1.0], [-1.0, 0.0]])
    assert row["predicted"]["text"]["option_likelihood"] == [0]
    assert row["marks"]["text"]["option_likelihood"] == [0]


def test_a_score_that_is_no_number_makes_a_reject():
    _, row, _ = rows_of([[-2.0, float("nan")], [-1.0, 0.0]])
    assert row == {"reject": "score is not a number", "question_id": "q"}
