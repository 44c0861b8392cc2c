"""A refusal is known in many wordings and languages; somebody in the image may be sorry, too."""

import time

import pytest

from lavis.llm.replies.refusal import is_refusal

REFUSALS = [
    "I'm sorry, but I can't assist with that request.",
    "I’m sorry, but I can’t help with that.",
    "Sorry, I cannot identify people in images.",
    "I am unable to answer this question.",
    "I'm not able to see the image you mention.",
    "I apologize, but I cannot provide a description of this picture.",
    "Unfortunately, I am unable to determine what happens.",
    "As an AI language model, I have no eyes.",
    "As an AI, I cannot feel.",
    "I'm just an AI and have no opinion.",
    "It cannot be determined from the notes.",
    "There is not enough information to say.",
    "Unable to determine.",
    "I must decline to describe this.",
    "I won't be able to help with this one.",
    "I don't have access to the image.",
    "I do not see any image. Please upload the picture again.",
    "Please provide the image you would like me to describe.",
    "A man stands there. I'm sorry, but I can't identify him.",
    "**I'm sorry**, I can't do that",
    "Answer: I cannot help with that.",
    "I'm sorry.",
    "I can't.",
    "\"I'm sorry, but I can't assist with that request.\"",
    "This content violates our usage policies.",
    "Lo siento, pero no puedo ayudar con eso.",
    "Je suis désolé, mais je ne peux pas répondre à cette question.",
    "Es tut mir leid, aber ich kann dabei nicht helfen.",
    "Desculpe, mas não posso ajudar com isso.",
    "Mi dispiace, ma non posso aiutarti.",
    "Het spijt me, maar ik kan daar niet bij helpen.",
    "Przykro mi, ale nie mogę pomóc.",
    "Извините, но я не могу помочь с этим.",
    "Üzgünüm, bu konuda yardımcı olamam.",
    "Xin lỗi, tôi không thể giúp việc này.",
    "Maaf, saya tidak dapat membantu.",
    "很抱歉，我无法协助处理这个请求。",
    "對不起，我不能回答這個問題。",
    "申し訳ありませんが、お手伝いできません。",
    "죄송합니다. 도와드릴 수 없습니다.",
    "죄송하지만 도와드릴 수 없습니다.",
    "عذراً، لا أستطيع المساعدة في ذلك.",
    "क्षमा करें, मैं इसमें मदद नहीं कर सकता।",
    "ขออภัย ฉันไม่สามารถช่วยได้",
    "מצטער, אני לא יכול לעזור.",
    "作为一个人工智能语言模型，我没有眼睛。",
    "Je suis de\u0301sole\u0301, mais je ne peux pas aider.",
]
ANSWERS = [
    '"I\'m sorry," says [0] to [1].',
    "“I’m sorry, I can’t help you carry that,” says [0].",
    "'I'm sorry, I can't help it,' says [0].",
    "I'm sorry for being late, he seems to say",
    "I'm sorry I can't make it, she is telling [1].".replace("is telling", "tells"),
    "Sorry, we are closed, says the sign.",
    '"I can\'t believe it!"',
    '"I\'m sorry."',
    "[0] is sorry that he cannot help [1].",
    "He works as an AI researcher.",
    "She is unable to answer the phone because her hands are full.",
    "[0] cannot see the picture behind [1].",
    "I'm sorry for your loss.",
    "She cannot determine which bus is hers.",
    "The sign says «Lo siento, no puedo pasar».",
    "Sorry that he broke the vase, [0] hides.",
    "A man apologizes to a woman.",
    "他对她说：「抱歉，我不能来。」",
    "He has to help [1].",
    "A poster tells of the safety policies of the company.",
    "We can tell that [0] is sad.",
    "",
]


@pytest.mark.parametrize("text", REFUSALS)
def test_refusals(text):
    assert is_refusal(text)


@pytest.mark.parametrize("text", ANSWERS)
def test_answers_are_none(text):
    assert not is_refusal(text)


@pytest.mark.parametrize("unit", [*"“„«「『《.!", "“a", '"x": ', "sorry ", "i cannot "])
def test_time_grows_with_the_length_alone(unit):
    start = time.process_time()
    is_refusal(unit * (300_000 // len(unit)))
    assert time.process_time() - start < 5  # below 0.1 s; a square of the length would be minutes
