"""A corpus scored by a server: right scores, nothing paid twice, whatever ends a start."""

import base64
import io
import json
import re
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from verdict_replies import place, ranking, text_of, with_logprobs, yes_or_no

from launching import KILLED, jobs_of, run_steps
from lavis.common.cli import build_runner
from lavis.common.config.loading import load_config
from lavis.common.dist import World
from lavis.common.errors import ConfigError, RunError
from lavis.integrations.endpoint_config import EndpointCriticConfig
from lavis.integrations.endpoint_critic import EndpointCritic
from lavis.llm.money.ledger import folder_totals

IMAGES, TEXTS = 4, 3
RESULT = "result/test_epochbest.json"
BUILD = "datasets.unified_vqa_binary.build_info"
ONE = World(0, 1, torch.device("cpu"))


def record(image, number):
    return {
        "image": f"{image}.png", "source": "made", "index": f"{image}-{number}", "region": [0],
        "region_all": [0], "references": [{"name": "0", "boxes": [[8, 8, 30, 30]]}],
        "question": ["what", "is", [0], "?"], "answer": [f"thing {image} {number}"],
        "rationale": [[0], "is", "there"],
    }  # fmt: skip


@pytest.fixture
def corpus(tmp_path):
    """Write a corpus; return a function that makes the options of a run over it."""
    records = [record(image, number) for image in range(IMAGES) for number in range(TEXTS)]
    for image in range(IMAGES):
        Image.new("RGB", (48, 40), (40 * image, 90, 200)).save(tmp_path / f"{image}.png")
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))

    def options(server, folder="out", **more):
        node = {
            "backend": "openai", "model": "tiny", "base_url": server.url,
            "api_key_env": "LLM_TEST_KEY", "cache_dir": str(tmp_path / "cache"),
            "min_retry_wait": 0.01, "max_retry_wait": 0.02, "max_attempts": 2,
        }  # fmt: skip
        llm = [f"model.llm.{name}={value}" for name, value in node.items()]
        return [
            *llm, "model.retry=null", "model.llm.prices=null",
            f"run.output_dir={tmp_path / folder}",
            f"{BUILD}.annotations.test.storage={tmp_path}/corpus.jsonl",
            f"{BUILD}.images.storage={tmp_path}",
            "run.batch_size_eval=3", "run.num_workers=0",
            *(f"{key.replace('__', '.')}={value}" for key, value in more.items()),
        ]  # fmt: skip

    return options


RUN_FILE = "lavis/projects/vlm/eval/endpoint_filtering.yaml"


def evaluate(options):
    return build_runner(load_config(RUN_FILE, options)).evaluate()


def share(text):
    """Return P(yes) of a prompt: any number that follows from its text."""
    return (zlib.crc32(text.encode()) % 80 + 5) / 100


def answer(body, n):
    yes = share(text_of(body))
    return yes_or_no(yes, 0.9 - yes, rest={"The": 0.02})


def rows_of(folder):
    return json.loads((folder / RESULT).read_text())


def test_a_corpus_is_scored_by_a_server(serve, corpus, tmp_path):
    server = serve(answer)
    metrics = evaluate(corpus(server, run__keep_above="[0.25,0.5]"))
    rows = rows_of(tmp_path / "out")
    assert metrics["test"]["scored"] == len(rows) == len(server.bodies) == IMAGES * TEXTS
    prompts = {re.search(r"thing \d \d", text_of(body))[0]: text_of(body) for body in server.bodies}
    for row in rows:
        yes = share(prompts[re.search(r"thing \d \d", row["text"])[0]])
        low, high = yes / (0.9 + 0.08), (yes + 0.08) / (0.9 + 0.08)
        assert row["score"] == pytest.approx(yes / 0.9, abs=1e-6)
        assert row["prediction"] == int(yes > 0.45)
        assert (row["p_yes_low"], row["p_yes_high"]) == (pytest.approx(low), pytest.approx(high))
        assert row["p_yes_low"] <= row["score"] <= row["p_yes_high"]
        assert (row["mass"], row["reason"]) == (pytest.approx(0.9), "")
        assert row["unsure_at"] == [t for t in (0.25, 0.5) if low < t <= high]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    for threshold in (0.25, 0.5):
        unsure = sum(threshold in row["unsure_at"] for row in rows)
        assert summary["unsure"][str(threshold)] == unsure
    assert folder_totals(tmp_path / "out").requests == len(rows)


def test_the_image_is_sent_as_it_is_shown(serve, corpus, tmp_path):
    server = serve(answer)
    options = corpus(server)
    evaluate(options)
    runner = build_runner(load_config(RUN_FILE, options))
    dataset = runner.datasets["unified_vqa_binary"]["test"]
    sent = {body["messages"][0]["content"][0]["image_url"]["url"] for body in server.bodies}
    shown = {np.asarray(dataset.drawn_image(dataset.row(n))).tobytes() for n in range(len(dataset))}
    decoded = {url: base64.b64decode(url.partition(",")[2]) for url in sent}
    pixels = {np.asarray(Image.open(io.BytesIO(data))).tobytes() for data in decoded.values()}
    assert len(sent) == IMAGES and pixels == shown


@pytest.mark.parametrize("form, head", [("png", "data:image/png"), ("jpeg", "data:image/jpeg")])
def test_formats(serve, settings, form, head, tmp_path):
    server = serve(answer)
    config = EndpointCriticConfig(llm=settings(server), image_format=form, jpeg_quality=90)
    critic = EndpointCritic.from_config(config)
    view = torch.zeros(3, 20, 30, dtype=torch.uint8)
    parts = [{"question": "q", "answer": "a", "rationale": "", "text": "q a"}] * 2
    with critic.scoring(tmp_path / "out", ONE):
        found = critic.predict({"views": [[view, view]], "parts": parts, "image_index": [0, 0]})
    (body,) = server.bodies  # equal texts are asked about once
    content = body["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image_url", "image_url", "text"]
    assert content[0]["image_url"]["url"].startswith(head) and found["prediction"].shape == (2, 2)
    torch.testing.assert_close(found["logits"].exp(), found["prediction"])


def test_samples_without_views_name_the_processor(settings, serve, tmp_path):
    critic = EndpointCritic.from_config(EndpointCriticConfig(llm=settings(serve(answer))))
    with pytest.raises(ConfigError, match=r"score inside `with critic.scoring"):
        critic.predict({})
    with (
        critic.scoring(tmp_path / "out", ONE),
        pytest.raises(ConfigError, match=r"vis_processor to \{eval: \{name: vlm_image\}\}"),
    ):
        critic.predict({"image": torch.zeros(1, 3, 8, 8), "text_input": ["a"]})


# Starts that end early


def test_a_run_killed_five_times_pays_for_nothing_twice(serve, corpus, tmp_path):
    server = serve(answer)
    evaluate(corpus(server, "whole", model__llm__cache_dir=tmp_path / "other"))
    server.bodies.clear()
    arguments = ["--cfg-path", RUN_FILE, "--options", *corpus(server, "killed")]
    steps = [jobs_of("evaluate.py", arguments, die_at=n) for n in (1, 1, 2, 1, 2)]
    statuses, log = run_steps(
        [*steps, jobs_of("evaluate.py", arguments)],
        ["lavis.integrations.endpoint_critic", "lavis.runners.runner"],
    )
    assert statuses == [*[[KILLED]] * 5, [0]], log
    assert len(server.bodies) == IMAGES * TEXTS
    for name in (RESULT, "summary.json", "kept/test_epochbest_filtered_threshold_0.5.jsonl"):
        whole = (tmp_path / "whole" / name).read_bytes()
        assert (tmp_path / "killed" / name).read_bytes() == whole, name
    assert folder_totals(tmp_path / "killed").requests == IMAGES * TEXTS


def test_what_failed_for_now_is_asked_about_at_the_next_start(serve, corpus, tmp_path):
    def ill(body, n):
        return (
            (500, {"error": {"message": "boom"}}) if "thing 1 1" in str(body) else answer(body, n)
        )

    server = serve(ill)
    metrics = evaluate(corpus(server))
    assert (metrics["test"]["scored"], metrics["test"]["rejected"]) == (11, 1)
    (line,) = (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"] == "HTTP 500: boom"
    server.bodies.clear()
    server.answer = answer
    assert evaluate(corpus(server))["test"]["scored"] == 12
    assert len(server.bodies) == 1
    evaluate(corpus(server, "whole"))  # all replies are stored
    assert len(server.bodies) == 1
    assert (tmp_path / "out" / RESULT).read_bytes() == (tmp_path / "whole" / RESULT).read_bytes()


def test_what_a_server_refuses_is_a_reject(serve, corpus, tmp_path):
    def picky(body, n):
        long = (400, {"error": {"message": "maximum context length is 10"}})
        return long if "thing 1 1" in str(body) else answer(body, n)

    server = serve(picky)
    evaluate(corpus(server))
    (line,) = (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"].startswith("too long: HTTP 400")
    server.bodies.clear()
    assert evaluate(corpus(server))["test"]["rejected"] == 1
    assert not server.bodies


def test_a_cap_ends_a_run_and_a_higher_one_goes_on(serve, corpus, tmp_path):
    server = serve(answer)
    with pytest.raises(RunError, match=r"^not complete: model.llm.caps: max_requests \(5\) is"):
        evaluate(corpus(server, model__llm__caps__max_requests=5))
    assert len(server.bodies) == 5
    more = {"model__llm__caps__max_requests": 12, "model__llm__concurrency": 2}
    assert evaluate(corpus(server, **more))["test"]["scored"] == 12
    assert len(server.bodies) == 12


def test_a_server_without_logprobs_is_refused_before_a_row_is_written(serve, corpus, tmp_path):
    server = serve(lambda body, n: "Yes")
    with pytest.raises(ConfigError, match=r"^model.llm: the server answers without logprobs"):
        evaluate(corpus(server))
    assert len(server.bodies) == 1 and not list((tmp_path / "out" / "journal").rglob("*.jsonl"))
    server.answer = lambda body, n: json.dumps({"reason": "r", "verdict": 4})
    evaluate(corpus(server, model__mode="judge"))
    assert {row["score"] for row in rows_of(tmp_path / "out")} == {0.75}
    assert {row["scale"] for row in rows_of(tmp_path / "out")} == {"judge"}


def test_scores_of_another_prompt_model_or_mode_are_not_mixed(serve, corpus):
    server = serve(answer)
    evaluate(corpus(server))
    for key, value in (
        ("model__prompt", "rationale_supports_answer"), ("model__llm__model", "other"),
        ("model__yes_words", "[Sure]"), ("model__image_format", "jpeg"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=r"there and .* here"):
            evaluate(corpus(server, **{key: value}))
    server.bodies.clear()
    free = {"model__llm__rpm": 1000, "model__llm__caps__max_tokens": 10_000_000}
    assert evaluate(corpus(server, **free))["test"]["scored"] == 12
    assert not server.bodies


def test_a_missing_key_is_said_before_anything_is_sent(serve, corpus, monkeypatch, tmp_path):
    options = corpus(serve(answer), model__llm__api_key_env="NO_SUCH_KEY")
    config = load_config(RUN_FILE, [*options, "model.llm.base_url=null"])
    with pytest.raises(ConfigError, match=r"model.llm.api_key_env: the .* variable NO_SUCH_KEY"):
        build_runner(config)


# Processes


def test_two_processes_write_the_file_of_one(serve, corpus, tmp_path):
    server = serve(answer)
    evaluate(corpus(server, "one", model__llm__cache_dir=tmp_path / "other"))
    server.bodies.clear()
    arguments = ["--cfg-path", RUN_FILE, "--options", *corpus(server, "two")]
    statuses, log = run_steps(
        [jobs_of("evaluate.py", arguments, size=2)],
        ["lavis.integrations.endpoint_critic", "lavis.runners.runner"],
    )
    assert statuses == [[0, 0]], log
    assert (tmp_path / "one" / RESULT).read_bytes() == (tmp_path / "two" / RESULT).read_bytes()
    assert len(server.bodies) == folder_totals(tmp_path / "two").requests == 12


def test_caps_hold_for_one_process(settings, serve, tmp_path):
    llm = settings(serve(answer), caps={"max_requests": 5})
    critic = EndpointCritic.from_config(EndpointCriticConfig(llm=llm))
    world = SimpleNamespace(size=2, rank=0)
    with (
        pytest.raises(ConfigError, match=r"model.llm.caps hold for one process, and there are 2"),
        critic.scoring(tmp_path, world),
    ):
        pass


# Other ways to ask


def test_a_reranker_scores_the_texts_of_an_image_in_one_request(serve, corpus, tmp_path):
    def rank(body, n):
        return ranking([share(text) for text in body["documents"]])

    server = serve(rank)
    evaluate(corpus(server, model__mode="rerank"))
    rows = rows_of(tmp_path / "out")
    assert len(server.bodies) == IMAGES and set(server.paths) == {"/v1/rerank"}
    documents = {text: share(text) for body in server.bodies for text in body["documents"]}
    expected = {re.search(r"thing \d \d", text)[0]: score for text, score in documents.items()}
    assert len(expected) == len(rows) == 12
    for row in rows:
        score = expected[re.search(r"thing \d \d", row["text"])[0]]
        assert row["score"] == pytest.approx(score) and "unsure_at" not in row


def test_the_vqascore_prompt_is_read_over_the_whole_vocabulary(serve, settings, tmp_path):
    top = {"Yes": 0.25, "yes": 0.5, "No": 0.1}
    server = serve(lambda body, n: with_logprobs("yes", [place("yes", top)]))
    config = EndpointCriticConfig(llm=settings(server), prompt="vqascore")
    critic = EndpointCritic.from_config(config)
    with critic.scoring(tmp_path / "out", ONE):
        found = critic.predict({"views": [[]], "parts": [{"text": "a dog"}]})
    assert server.bodies[0]["messages"][0]["content"].startswith('Does this figure show "a dog"?')
    assert found["prediction"][0].tolist() == [0.75, 0.25]
    assert found["notes"][0]["p_yes_low"] == found["notes"][0]["p_yes_high"] == 0.25


def test_bounds_hold_the_score_as_the_journal_has_it(serve, settings, tmp_path):
    top = {"Yes": 0.7, "No": 0.1}  # 0.7 in 32 bits is less
    server = serve(lambda body, n: with_logprobs("Yes", [place("Yes", top)]))
    config = EndpointCriticConfig(llm=settings(server), prompt="vqascore")
    critic = EndpointCritic.from_config(config)
    with critic.scoring(tmp_path / "out", ONE):
        found = critic.predict({"views": [[]], "parts": [{"text": "a dog"}]})
    (note,), score = found["notes"], found["prediction"][0, 1].item()
    assert score < 0.7 and note["p_yes_low"] <= score <= note["p_yes_high"]


def judge(messages, request):
    return json.dumps({"reason": "by rule", "verdict": 5})


def test_a_script_may_judge_without_a_network(tmp_path):
    llm = {"backend": "scripted", "script": f"{__file__}:judge"}
    critic = EndpointCritic.from_config(EndpointCriticConfig(llm=llm, mode="judge"))
    with critic.scoring(tmp_path, ONE):
        found = critic.predict({"views": [[]], "parts": [{"text": "a dog"}]})
    assert found["prediction"][0].tolist() == [0, 1] and found["notes"][0]["reason"] == "by rule"


def test_it_cannot_be_trained(settings, serve):
    critic = EndpointCritic.from_config(EndpointCriticConfig(llm=settings(serve(answer))))
    for call in (lambda: critic({}), lambda: critic.get_optimizer_params(0.1)):
        with pytest.raises(ConfigError, match=r"cannot be trained; use evaluate.py"):
            call()


def test_the_two_verdicts_share_no_word(settings, serve):
    config = EndpointCriticConfig(llm=settings(serve(answer)), yes_words=["no"], no_words=["No"])
    with pytest.raises(ConfigError, match=r"model.yes_words and model.no_words share a word"):
        EndpointCritic.from_config(config)
