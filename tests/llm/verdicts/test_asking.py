"""What all modes do: who goes first, which failures may pass, who shares a request."""

import pytest
from verdict_replies import text_of

from lavis.llm.base import image_part
from lavis.llm.client import build_client
from lavis.llm.verdicts.asking import Asker, ImageQuestion, TextVerdict, by_image
from lavis.llm.verdicts.config import VerdictConfig

PART = image_part(b"\x89PNG one")


class Echo(Asker):
    """Scores a text by the length of the reply."""

    def check_first(self, reply):
        if reply.text == "bad":
            raise ValueError("a bad first reply")

    def verdicts(self, questions):
        requests = [self.chat(str(n), question) for n, question in enumerate(questions)]
        replies = self.replies(requests)
        found = [replies[request.key] for request in requests]
        return [TextVerdict(len(one.text)) if one.ok else self.failed(one) for one in found]


@pytest.fixture
def run(settings, tmp_path):
    def verdicts(server, *texts, views=(PART,), extra=None, **options):
        llm = settings(server, concurrency=4, max_attempts=1, extra_body=extra)
        config = VerdictConfig(llm=llm, **options)
        with build_client(config.llm, tmp_path / "run") as client:
            return Echo(client, config).verdicts([ImageQuestion(0, views, t) for t in texts])

    return verdicts


def test_the_first_answer_is_waited_for_and_looked_at(serve, run):
    server = serve(lambda body, n: "bad")
    with pytest.raises(ValueError, match="a bad first reply"):
        run(server, *"abcdef")
    assert len(server.bodies) == 1


def test_failures_are_followed_by_one_more_until_the_server_answers(serve, run):
    running = []

    def answer(body, n):
        running.append(server.running)
        return (500, {"error": {"message": "boom"}}) if text_of(body) in "ab" else "fine"

    server = serve(answer)
    verdicts = run(server, *"abcdefgh")
    assert running[:3] == [1, 1, 1] and len(running) == 8
    assert [one.score for one in verdicts] == [None, None, 4, 4, 4, 4, 4, 4]
    assert [one.again for one in verdicts[:2]] == [True, True]


@pytest.mark.parametrize(
    ("thinking", "extra", "sent"),
    [
        (False, None, {"enable_thinking": False}),
        (True, None, None),
        (False, {"chat_template_kwargs": {"budget": 3}}, {"enable_thinking": False, "budget": 3}),
        (False, {"chat_template_kwargs": {"enable_thinking": True}}, {"enable_thinking": True}),
    ],
)
def test_thinking_is_switched_off_unless_the_run_file_says_otherwise(
    serve, run, thinking, extra, sent
):
    server = serve()
    run(server, "q", thinking=thinking, extra=extra)
    assert server.bodies[0].get("chat_template_kwargs") == sent


def test_a_text_without_an_image_is_sent_as_a_text(serve, run):
    server = serve()
    run(server, "q", views=())
    assert server.bodies[0]["messages"] == [{"role": "user", "content": "q"}]


def test_notes_are_columns_or_a_reason():
    assert TextVerdict(0.5, columns={"mass": 1}).note() == {"mass": 1}
    assert TextVerdict(0.5, columns={"mass": 1}, again=True).note() == {"mass": 1, "again": True}
    assert TextVerdict(reject="x: y").note() == {"reject": "x: y"}
    assert TextVerdict(reject="x", again=True).note() == {"reject": "x", "again": True}


def test_questions_about_one_image_stay_together():
    questions = [ImageQuestion(image, (), "t") for image in (3, 1, 3, 3, 1, 3)]
    assert list(by_image(questions, 64)) == [[0, 2, 3, 5], [1, 4]]
    assert list(by_image(questions, 3)) == [[0, 2, 3], [5], [1, 4]]
