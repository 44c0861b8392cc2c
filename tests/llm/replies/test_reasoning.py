"""Thoughts are told from answers by their marks, whatever model wrote them."""

import time

import pytest

from lavis.llm.replies.reasoning import answer_text, open_mark

FINAL = "<|start|>assistant<|channel|>final<|message|>"


@pytest.mark.parametrize(
    ("text", "answer", "thought"),
    [
        ("plain", "plain", ""),
        (" spaces stay \n", " spaces stay \n", ""),
        ("<think>x</think>\n\ny", "y", "x"),
        ("< THINK >x</ Think >y", "y", "x"),
        ("\ufeff<thinking type='deep'>x</thinking>y", "y", "x"),
        ("<seed:think>x</seed:think>y", "y", "x"),
        ("<reasoning>x</reasoning>y", "y", "x"),
        ("<reflection>x</reflection>y", "y", "x"),
        ("<thought>x</thought>y", "y", "x"),
        ("◁think▷x◁/think▷y", "y", "x"),
        ("&lt;think&gt;x&lt;/think&gt;y", "y", "x"),
        ("[THINK]x[/THINK]y", "y", "x"),
        ("<|begin_of_thought|>x<|end_of_thought|><|begin_of_solution|>y<|end_of_solution|>",
         "y", "x"),
        ("<|START_THINKING|>x<|END_THINKING|><|START_RESPONSE|>y<|END_RESPONSE|>", "y", "x"),
        (f"<|channel|>analysis<|message|>x<|end|>{FINAL}y<|return|>", "y", "x"),
        ('<|channel|>analysis<|message|>x<|end|><|channel|>final <|constrain|>json<|message|>{"a"}',
         '{"a"}', "x"),
        ("<|channel|>commentary to=f<|message|>x<|call|>y", "y", "x"),
        ("analysisWe think. assistantfinalThe y", "The y", "We think."),
        ("Analysis of the scene", "Analysis of the scene", ""),
        ("<unused94>thought\nx<unused95>y", "y", "x"),
        ("Here is my thought process: x\nHere is my response: y", "y", "x"),
        ("x <answer>y</answer>", "y", "x"),
        # the start stood in the prompt
        ("x</think>y", "y", "x"),
        ("a</think>b</think>c", "c", "a\n\nb"),
        # never closed: no answer
        ("<think>x", "", "x"),
        ("<|channel|>analysis<|message|>x", "", "x"),
        ("analysisWe think", "", "We think"),
        ('<think>so {"items": [1]} or', "", 'so {"items": [1]} or'),
        ("y\n<think>x", "y", "x"),
        # several, nested, doubled by a template
        ("<think>a</think>y<think>b</think>", "y", "a\n\nb"),
        ("<think>a<think>b</think>c</think>y", "y", "a\n\nb\n\nc"),
        ("<think>\n<think>\nb</think>y", "y", "b"),
        ("<thinking>a<reasoning>b</reasoning>c</thinking>y", "y", "a\n\nb\n\nc"),
        ("<think></think>y", "y", ""),
        ("<think/>y", "y", ""),
        # only mentioned
        ('A button says "<think>" in red', 'A button says "<think>" in red', ""),
        ("the tag `</think>` on a shirt", "the tag `</think>` on a shirt", ""),
        ('{"q": "What is <think> for?"}', '{"q": "What is <think> for?"}', ""),
        ("He thinks <b>so</b>", "He thinks <b>so</b>", ""),
        # what servers leave behind
        ("y<|im_end|>", "y", ""),
        ("y</s>\n", "y", ""),
    ],
)  # fmt: skip
def test_the_answer_is_what_stands_outside(text, answer, thought):
    assert answer_text(text) == (answer, thought)


@pytest.mark.parametrize(
    "unit", ["<", "<think>", "</think>", "<think ", "\n", " ", "[ ", "< ", "<a:", "\n <answer"]
)
def test_time_grows_with_the_text_alone(unit):
    start = time.process_time()
    answer_text(unit * (400_000 // len(unit)))
    assert time.process_time() - start < 5  # a square of it would take hours


@pytest.mark.parametrize(
    ("prompt", "mark"),
    [
        ("<user>hi<assistant><think>\n", "<think>"),
        ("<user>hi [THINK]", "[THINK]"),
        ("<user>hi<assistant><think>\n\n</think>\n\n", ""),
        ("<user>hi <think> why", ""),
        ("", ""),
    ],
)
def test_a_prompt_may_open_the_thought(prompt, mark):
    assert open_mark(prompt) == mark
