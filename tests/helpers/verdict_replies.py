"""Chat completions with logprobs, and answers of rerankers: for tests of verdicts."""

import math

from chat_server import completion


def place(token, top):
    """Return the report about one token; `top` is text -> probability."""
    entries = [{"token": text, "logprob": math.log(p)} for text, p in top.items()]
    own = math.log(top.get(token, 1e-6))
    return {"token": token, "logprob": own, "bytes": None, "top_logprobs": entries}


def with_logprobs(text, places, **more):
    """Return a completion whose tokens are reported."""
    body = completion(text, **more)
    body["choices"][0]["logprobs"] = {"content": places}
    return body


def yes_or_no(yes, no, *, rest=(), before=(), after=(), text=None):
    """Return a completion of one word; `rest` are further tokens with probabilities."""
    top = {"Yes": yes, "No": no, **dict(rest)}
    word = max(top, key=top.get)
    written = "".join([*before, word, *after]) if text is None else text
    places = [place(token, {token: 0.9}) for token in before]
    places += [place(word, top), *(place(token, {token: 0.9}) for token in after)]
    return with_logprobs(written, places)


def ranking(scores, *, name="relevance_score", container="results"):
    """Return a reranker's answer, the best first as servers have it."""
    rows = [{"index": n, name: score} for n, score in enumerate(scores)]
    rows.sort(key=lambda row: -row[name])
    return {container: rows, "usage": {"total_tokens": 30}}


def text_of(body):
    """Return the last text of a request's last user turn."""
    content = [m for m in body["messages"] if m["role"] == "user"][-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]
