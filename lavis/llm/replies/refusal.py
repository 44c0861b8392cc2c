"""Whether a text refuses what was asked, in place of doing it; one test for every kind of reply.

Refusals speak of themselves: an apology *and* what cannot be done, at the start of a sentence, or
what the writer is. Somebody in the image may be sorry, too, so an apology alone is none unless it
is the whole text, and neither is what stands in quotation marks or is said by somebody
(`"I'm sorry," says [0]`; `I'm sorry for being late, he seems to say`).
"""

from __future__ import annotations

import re

from lavis.common.text import fold

_START = r"(?:^|[.!?;。！？।؟\n])(?:\W|\b(?:answer|caption|description|response|note)\s*:){0,20}"
_CANNOT = (
    r"(?:can(?:not|'t| not)|could(?: not|n't)|(?:am|'m|are|'re) (?:unable|not able) to|"
    r"(?:will not|won't)(?: be able to)?|(?:must|have to)(?= (?:decline|refuse))|"
    r"(?:am|'m) not (?:comfortable|allowed|permitted|in a position|equipped|designed|programmed))"
)
_TASK = (
    r"(?:help|assist|fulfil+|comply|provide|answer|determine|identify|describ|generat|creat|writ|"
    r"produc|view|access|analy[sz]|process|discuss|engag|complet|offer|recogni[sz]|infer|comment|"
    r"support|participat|tell\b|say\b|mak|give|continue|respond|read|interpret|verif|confirm|"
    r"declin|refus|do (?:that|this|so|it)\b|(?:see|open|look at|display) (?:the|any|an?|this|your) "
    r"(?:image|picture|photo|attach|content|file))"
)
_SORRY = (
    r"(?:i(?: am|'m) (?:very |so |really |truly )?(?:sorry|afraid)|(?:so |very )?sorry|"
    r"i (?:do )?apologi[sz]e|my apologies|apologies|unfortunately|regrettably|i regret)"
)
# Other languages: an apology, and the first person's "cannot" that comes with it.
_PAIRS = (
    (r"lo (?:siento|lamento)|perd[oó]n|disculp[ae]|lamentablemente", r"no (?:puedo|me es posible)"),
    (r"(?:je suis )?(?:vraiment )?d[ée]sol[ée]+|malheureusement|je m'excuse|excusez",
     r"je ne (?:peux|puis|suis pas)|il m'est impossible"),
    (r"(?:es )?tut mir (?:sehr )?leid|leider|entschuldig(?:ung|en sie)|verzeihung",
     r"(?:ich kann|kann ich|(?:ich bin|bin ich) nicht)"),
    (r"desculp[ea]|sinto muito|lamento|infelizmente", r"não (?:posso|consigo)"),
    (r"mi (?:di)?spiace|scus[ai]|purtroppo", r"non (?:posso|sono in grado|riesco)"),
    (r"het spijt me|sorry|helaas", r"(?:ik kan|kan ik)"),
    (r"tyvärr|beklager|jeg beklager|jag är ledsen|desværre|undskyld",
     r"(?:kan ja?e?g|ja?e?g kan) (?:inte|ikke)"),
    (r"przepraszam|przykro mi|niestety", r"nie (?:mogę|jestem w stanie)"),
    (r"извини(?:те)?|прости(?:те)?|к сожалению|вибачте|на жаль",
     r"не (?:могу|можу|в состоянии|имею возможности)"),
    (r"üzgünüm|maalesef|özür dilerim", r"\w+(?:amam|emem|amıyorum|emiyorum)"),
    (r"(?:rất )?(?:xin lỗi|tiếc)", r"tôi không thể"),
    (r"maaf|mohon maaf", r"saya tidak (?:dapat|bisa|boleh)"),
    (r"(?:我)?(?:很|非常|真的)?(?:抱歉|对不起|對不起|遗憾|遺憾|不好意思)",
     r"(?:无法|無法|不能|没办法|沒辦法|没有办法)"),
    (r"(?:大変|誠に)?(?:申し訳|すみません|すいません|ごめんなさい|残念ながら|恐れ入りますが)",
     r"(?:できません|出来ません|できかねます|いたしかねます|ありませんが.{0,30}ません)"),
    (r"(?:정말 )?(?:죄송|미안|유감)", r"(?:수 없|못합니다|어렵습니다|불가능)"),
    (r"(?:عذر[اً]*|آسف|أنا آسف|أعتذر|معذرة|للأسف)", r"لا (?:أستطيع|يمكنني|أقدر)"),
    (r"(?:मुझे )?(?:क्षमा|माफ़|माफ|खेद|दुर्भाग्य)", r"नहीं (?:कर|दे|बता|सक)"),
    (r"(?:ต้อง)?(?:ขออภัย|ขอโทษ|เสียใจ)", r"ไม่สามารถ"),
    (r"(?:אני )?(?:מצטער|מתנצל|סליחה|לצערי)", r"(?:לא יכול|איני יכול|אין באפשרותי)"),
)  # fmt: skip
_WRITER = (
    r"\bas an? (?:ai|artificial intelligence|(?:large )?language model|llm)\b"
    r"(?= (?:language )?(?:model|assistant|system|chatbot)\b| ?,| i\b| (?:made|trained)\b|$)",
    r"\bi(?: am|'m) (?:just |only )?an? (?:ai|artificial intelligence|(?:large )?language model)\b"
    r"(?= (?:language )?(?:model|assistant|system|chatbot)\b| ?[,.]| and\b|$)",
    r"\bas an? (?:large )?language model\b",
    r"(?:en tant qu[e'] ?|como |als |come )(?:un[ea]? |eine? )?(?:modelo de l(?:enguaje|inguagem)|"
    r"modèle de langage|modello linguistico|sprachmodell|ia\b|ki\b)",
    r"作(?:为|為)(?:一[个個名])?(?:人工智能|人工智慧|ai|(?:大型)?(?:语言|語言)模型)",
    r"(?:ai|言語モデル)(?:アシスタント)?として(?:、|,|私)",
    r"как (?:ии|искусственный интеллект|языковая модель)\b",
    r"\b(?:can ?not|can't) be determined\b|\bnot enough information\b|\binsufficient information\b",
    r"\b(?:violat\w+|against|breach\w*) (?:\w+ ){0,3}(?:content|usage|safety) polic(?:y|ies)\b",
    r"\bagainst my (?:guidelines|programming|policy)\b",
    r"\bplease (?:provide|upload|share|attach|send) (?:me )?(?:the|an?|your|another) "
    r"(?:\w+ )?(?:image|picture|photo)",
    r"\b(?:no|any|an) (?:image|picture|photo) (?:was |is |has been |to be )?"
    r"(?:provided|attached|uploaded|shared|included)\b",
)  # fmt: skip
_REFUSALS = tuple(
    re.compile(pattern)
    for pattern in (
        *_WRITER,
        # "I cannot help with ...", with or without an apology; "unable to determine ..."
        rf"{_START}(?:{_SORRY}[^.!?\n]{{0,40}}?)?\b(?:i|we) ?{_CANNOT}[^.!?\n]{{0,30}}?\b{_TASK}",
        rf"{_START}(?:{_SORRY}\W+(?:but )?)?(?:it is |it's )?(?:unable|not able) to {_TASK}",
        rf"{_START}(?:{_SORRY}[^.!?\n]{{0,40}}?)?\bi (?:do not|don't) "
        r"(?:have (?:the |any |enough )?(?:ability|access|capability|information|context|details)|"
        r"see (?:an|any|the) (?:image|picture|photo)|feel comfortable)",
        rf"^\W*{_SORRY}[^.!?\n]{{0,20}}?\bi {_CANNOT}\W*$",
        rf"^\W*(?:{_SORRY}|i {_CANNOT}|no comment)\W*$",
        *(rf"{_START}(?:{sorry})[^\n]{{0,60}}?{cannot}" for sorry, cannot in _PAIRS),
        *(rf"^\W*(?:{sorry})\W*$" for sorry, _ in _PAIRS),
        r"^\W*(?:我(?:无法|無法|不能)(?:帮|幫|提供|回答|协助|協助|满足|滿足|识别|識別|描述|查看|生成))",
        r"^\W*(?:no puedo (?:ayudar|responder|proporcionar|describir)|je ne peux pas (?:vous )?"
        r"(?:aider|répondre|fournir|décrire)|ich kann (?:ihnen |dir |dabei |das |diese\w* )*"
        r"(?:\w+ )?nicht (?:helfen|beantworten|beschreiben|bereitstellen))",
    )
)
# None goes over a further opening mark, nor `_SAID` over many marks: time would be quadratic.
_QUOTED = re.compile(
    r"\"[^\"]*\"|“[^“”]*”|„[^„“”]*[“”]|«[^«»]*»|「[^「」]*」|『[^『』]*』|《[^《》]*》"
)
_VERB = (
    r"(?:says?|said|saying|thinks?|thought|tells?|told|whispers?|whispered|shouts?|shouted|"
    r"replies|replied|answers|answered|explains?|explained|apologi[sz]es|apologi[sz]ed|writes|wrote)"
)
_WHO = r"(?:he|she|they|it|one|(?:the|an?|his|her|their) \w+|\[\d+\])"
_SAID = re.compile(
    rf"[,'!?.…]\W{{0,20}}{_WHO}(?: \w+){{0,3}}? (?:{_VERB}|say|think|mean|be saying|be thinking)\b|"
    rf"[,'!?.…]\W{{0,20}}{_VERB} (?:\[\d+\]|the |an? |he\b|she\b|they\b|to )"
)
_MOST = 20_000  # characters that are looked at; an answer has far fewer
_APOSTROPHES = str.maketrans("’‘ʼ`´＇", "''''''")


def is_refusal(text: str) -> bool:
    """Return whether a text, such as a caption, an answer or a whole reply, is a refusal."""
    plain = fold(text[:_MOST].translate(_APOSTROPHES))
    unquoted = _QUOTED.sub(" … ", plain)
    if not any(c.isalnum() for c in unquoted):
        unquoted = plain.strip('"“”„«»「」『』 ') if _speaks_of_its_task(plain) else ""
    if _SAID.search(unquoted):
        return False
    return any(pattern.search(unquoted) for pattern in _REFUSALS)


def _speaks_of_its_task(text: str) -> bool:
    """Return whether a text that is one quotation is a refusal put into quotation marks."""
    return bool(
        re.search(r"\b(?:request|assist|image|picture|photo|as an ai|language model)", text)
    )
