"""Models: providers over real HTTP, the relay folder, recordings, limits, keys."""

import os
import re
import threading
import time
from dataclasses import replace

import pytest

from kernelwright.errors import LimitReached, ModelCallError, ModelError
from kernelwright.llm import (
    Ledger,
    Limits,
    Prompt,
    RecordedModel,
    Recording,
    RelayModel,
    model_named,
    without_secrets,
)
from kernelwright.llm.provider import Patience, ProviderModel
from kernelwright.model import Exchange, Usage, content_hash
from kernelwright.testing.models import Answer, ScriptedModel, ScriptedServer, in_order

SECRET = "sk-very-secret-0123456789"
PROMPT = Prompt("Be brief.", "Say hello.", "coder", "refine/1/0/0", 500, seconds=20)
QUICK = Patience(attempts=3, first_wait_s=0.01, longest_wait_s=0.05, attempt_s=0.4)


@pytest.fixture
def ask(monkeypatch):
    """Asks a scripted server; gives the reply and what the server saw."""

    def asking(*answers, prompt=PROMPT):
        with ScriptedServer.serving(in_order(*answers)) as server:
            monkeypatch.setenv("OPENAI_BASE_URL", server.address)
            monkeypatch.setenv("OPENAI_API_KEY", SECRET)
            model = ProviderModel.connected("local:test-model", QUICK)
            try:
                return model.ask(prompt), server
            except ModelCallError as error:
                return error, server

    return asking


def test_a_reply_comes_with_its_usage(ask):
    reply, server = ask(Answer("hello"))
    assert (reply.text, reply.complete) == ("hello", True)
    assert reply.usage.input_tokens > 0
    assert reply.usage.output_tokens == 2
    assert reply.usage.attempts == 1
    assert reply.usage.dollars is None  # nobody knows what a local server costs
    assert server.requests[0]["model"] == "test-model"
    assert server.headers[0]["authorization"] == f"Bearer {SECRET}"
    assert SECRET not in str(server.requests)


@pytest.mark.parametrize(
    "trouble",
    [Answer(status=429, retry_after="0"), Answer(status=503), Answer("late", stall_s=0.8)],
    ids=["rate limit", "server error", "stall"],
)
def test_trouble_that_passes_is_tried_again(ask, trouble):
    reply, server = ask(trouble, Answer("at last"))
    assert reply.text == "at last"
    assert reply.usage.attempts == len(server.requests) == 2


def test_trouble_that_stays_is_told_after_so_many_attempts(ask):
    error, server = ask(Answer(f"slow down, {SECRET}", status=429))
    assert isinstance(error, ModelCallError)
    assert "attempts: 3" in str(error)
    assert SECRET not in str(error)
    assert len(server.requests) == 3


def test_a_document_that_is_cut_is_no_reply(ask):
    error, _ = ask(Answer("hello " * 50, cut=True))
    assert isinstance(error, ModelCallError)


def test_a_reply_that_is_cut_says_so(ask):
    reply, _ = ask(Answer("half a ker", finish="length"))
    assert reply.complete is False


def test_a_refusal_is_paid_for_and_empty(ask):
    reply, _ = ask(Answer("I will not.", refuses=True))
    assert (reply.text, reply.complete) == ("", False)
    assert reply.usage.output_tokens > 0


def test_a_key_that_is_wrong_ends_it_at_once(monkeypatch):
    with ScriptedServer.serving(in_order(Answer(f"bad key {SECRET}", status=401))) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.address)
        monkeypatch.setenv("OPENAI_API_KEY", SECRET)
        model = ProviderModel.connected("local:test-model", QUICK)
        with pytest.raises(ModelError, match="cannot be used") as told:
            model.ask(PROMPT)
    assert SECRET not in str(told.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gpt", "write PROVIDER:NAME"),
        ("openai:gpt-5", "OPENAI_API_KEY"),
        ("ollama:qwen", "OLLAMA_BASE_URL"),
        ("nobody:nothing", "Unknown model"),
        ("local:x", "set OPENAI_BASE_URL"),
    ],
)
def test_what_is_missing_is_named_before_anything_is_spent(name, words, monkeypatch):
    for variable in [v for v in os.environ if re.match("OPENAI|OLLAMA", v)]:
        monkeypatch.delenv(variable)
    with pytest.raises(ModelError, match=words):
        model_named(name)


def test_a_server_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.delenv("http_proxy", raising=False)
    with pytest.raises(ModelError, match=r"cannot be reached at 127\.0\.0\.1:9"):
        model_named("local:x")


def test_known_models_have_a_price(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    from pydantic_ai.models import infer_model

    model = ProviderModel("openai:gpt-5-mini", infer_model("openai:gpt-5-mini"))
    assert 0 < model.dollars(1000, 0) < model.dollars(1000, 1000) < 1


def test_a_relay_writes_a_request_and_waits_for_the_reply(tmp_path):
    model = model_named(f"relay:{tmp_path}")

    def answer():
        while not (found := list(tmp_path.glob("*.request.md"))):
            time.sleep(0.01)
        assert "Say hello." in found[0].read_text()
        found[0].with_name(found[0].name.replace("request", "reply")).write_text("hello")

    person = threading.Thread(target=answer)
    person.start()
    assert model.ask(PROMPT).text == "hello"
    person.join()
    assert [p.name[:9] for p in tmp_path.glob("*.request.md")] == ["001-coder"]
    assert RelayModel(tmp_path).ask(PROMPT).text == "hello"  # asked again: answered already


def test_a_relay_that_nobody_answers_says_so(tmp_path):
    with pytest.raises(ModelCallError, match="nobody answered"):
        RelayModel(tmp_path).ask(replace(PROMPT, seconds=0.1))


def _exchange(**changes):
    usage = Usage(600, 0, 400, 0.25, 1.0)
    exchange = Exchange(
        PROMPT.key, "coder", 1, "m", content_hash(PROMPT.text), "", "answered", usage
    )
    return replace(exchange, **changes)


def test_recordings_answer_by_key():
    model = RecordedModel("m", {PROMPT.key: Recording(_exchange(), "hello")})
    assert model.ask(PROMPT).text == "hello"
    assert model.dollars(10, 10) == 0
    with pytest.raises(ModelCallError, match="nothing is recorded for other"):
        model.ask(replace(PROMPT, key="other"))


def test_a_ledger_adds_up():
    ledger = Ledger()
    ledger.add(_exchange())
    ledger.add(_exchange(outcome="malformed", role="planner"))
    found = ledger.summary()
    assert (found["requests"], found["malformed"], found["dollars"]) == (2, 1, 0.5)
    assert found["by_role"]["coder"]["input_tokens"] == 600


def test_limits_hold_before_a_request_is_sent():
    model = ScriptedModel({}, price=0.001)
    prompt = replace(PROMPT, max_output_tokens=10_000)
    ledger = Ledger(Limits(tokens=5000))
    with ledger.reserved(model, prompt) as shorter:
        assert prompt.tokens + shorter.max_output_tokens == 5000
        with (
            pytest.raises(LimitReached, match="5000 tokens"),
            ledger.reserved(model, replace(prompt, key="second")),
        ):
            pass
    ledger = Ledger(Limits(dollars=8.0))
    with ledger.reserved(model, prompt) as shorter:
        assert shorter.max_output_tokens == 5000  # ten dollars would be too much
    ledger.add(_exchange(usage=Usage(0, 0, 0, 7.0)))
    with pytest.raises(LimitReached, match=r"\$8"), ledger.reserved(model, prompt):
        pass


def test_keys_are_blotted_out(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", SECRET)
    assert without_secrets(f"a {SECRET} b") == "a [SOME_API_KEY] b"
