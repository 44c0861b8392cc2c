"""Questions from the notes, and answers from the image."""

import numpy as np
from recorded import Recorder, open_scene

from lavis.verbalizers.base import Tools
from lavis.verbalizers.config import DynamicConfig, WriterConfig
from lavis.verbalizers.dynamic import DynamicQuestions, read_questions, write_notes


def test_questions_come_from_the_notes_and_answers_from_the_drawn_image(world):
    asker, answerer = Recorder(["1. What is [3] doing?\nIt is a dog.\n- Where is it?"]), Recorder()
    config = DynamicConfig(
        type="dynamic", asker=WriterConfig(model="a"), answerer=WriterConfig(model="b"), questions=2
    )
    stage = DynamicQuestions(
        config, Tools("d", 0, "cpu", lambda c: {"a": asker, "b": answerer}[c.model])
    )
    scene = open_scene(world)
    scene.record["captions"] = ["a dog runs"]
    scene.record["region_locations"]["3"]["attributes"] = ["red"]
    found = stage.describe([scene])[0]["dynamic"]
    assert [pair["question"] for pair in found] == ["What is [3] doing?", "Where is it?"]
    assert "Caption: a dog runs\n[0]: dog\n[3]: dog; red" in asker.requests[0].prompt
    drawn = scene.drawn([3], line_width="auto", image_size=480)
    np.testing.assert_array_equal(np.array(answerer.requests[0].image), np.array(drawn))
    assert answerer.requests[1].image is scene.read_image()


def test_questions_are_read_from_a_reply():
    reply = "Here are some.\n1) Who is [0]?\n(2) Why? 3. Who is [0]?\n* " + "x" * 400 + "?"
    assert read_questions(reply, 5) == ["Who is [0]?", "Why?"]
    assert (
        write_notes({"concepts": {"places": [{"text": "park", "score": 1}]}})
        == "Likely places: park"
    )


def test_the_asker_is_told_as_much_as_the_options_say():
    writer = WriterConfig(model="a")
    options = {"ask_prompt": "Ask {n} about: {notes}", "max_notes": 14, "questions": 4}
    config = DynamicConfig(type="dynamic", asker=writer, answerer=writer, **options)
    stage = DynamicQuestions(config, Tools("d", 0, "cpu", lambda _: Recorder()))
    assert stage.prompt({"captions": ["a dog runs"]}) == "Ask 4 about: Caption: a dog"
