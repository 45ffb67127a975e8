"""Where roles meet models: one place that asks, repairs once, records, counts and keeps limits."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from kernelwright.agents.prompts import MOST_TOKENS, clipped, fenced, one_line
from kernelwright.agents.replies import Malformed
from kernelwright.agents.roles import Question
from kernelwright.errors import LimitReached, ModelCallError
from kernelwright.llm import Ledger, Model, Prompt, Recording, Reply, tokens_of, without_secrets
from kernelwright.model import Exchange, Usage, content_hash

T = TypeVar("T")


class Journal(Protocol):
    """Keeps exchanges; the archive is one."""

    def recorded(self, key: str) -> Recording | None:
        """What was exchanged under this key before."""
        ...

    def record(self, exchange: Exchange, request: str, reply: str) -> None:
        """Keep an exchange with its two texts; on disk when this returns."""
        ...


class Unrecorded:
    """A journal that keeps nothing."""

    def recorded(self, key: str) -> Recording | None:
        """Nothing."""
        return None

    def record(self, exchange: Exchange, request: str, reply: str) -> None:
        """Forget it."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What a role said, or why it said nothing of use."""

    value: T | None
    model: str
    reason: str = ""
    spent: tuple[Exchange, ...] = ()


class Desk:
    """Asks models on behalf of roles. Called from several threads at once.

    Args:
        models: at least one.
        ledger: counts and limits.
        journal: a recorded exchange with the same key is taken instead of asking again.
        deadline: by `time.monotonic`; None: none.
    """

    def __init__(
        self,
        models: Sequence[Model],
        ledger: Ledger | None = None,
        journal: Journal | None = None,
        deadline: float | None = None,
    ) -> None:
        self.models = tuple(models)
        self.ledger = ledger or Ledger()
        self.journal = journal or Unrecorded()
        self.deadline = deadline
        self.differences: list[str] = []
        """Keys of recorded exchanges whose prompt is another now."""
        self.exhausted = ""
        """Why no more requests are sent; empty while they are."""

    def ask(self, question: Question[T], key: str, model: Model | None = None) -> Answer[T]:
        """Ask once, and once more with the complaint where the reply is malformed.

        Args:
            question: of a role.
            key: `LOOP/ROUND/SLOT/STEP` without the last; unique in a campaign.
            model: None: the first.

        Returns:
            The typed reply; or None, and why.

        Raises:
            ModelError: the model can never be asked.
        """
        model = model or self.models[0]
        user, spent = question.prompt.user, list[Exchange]()
        reason = ""
        for step in range(2):
            prompt = Prompt(
                question.prompt.system, user, question.role, f"{key}/{step}",
                question.max_output_tokens,
            )  # fmt: skip
            value, text, exchange = self._exchange(prompt, model, question)
            spent.append(exchange)
            if exchange.outcome == "answered":
                return Answer(value, model.name, "", tuple(spent))
            reason = exchange.reason
            if exchange.outcome == "failed":
                break
            user = _complaint(question, reason, text)
        return Answer(None, model.name, reason, tuple(spent))

    def _exchange(
        self, prompt: Prompt, model: Model, question: Question[T]
    ) -> tuple[T | None, str, Exchange]:
        """One request: from the journal, or sent and recorded."""
        found = self.journal.recorded(prompt.key)
        if found is not None:
            if not found.answers(prompt):
                self.differences.append(prompt.key)
            self.ledger.add(found.exchange)
            value, reason = None, ""
            if found.exchange.outcome != "failed":
                value, reason = _read(question.read, found.text)
            if (value is not None) != (found.exchange.outcome == "answered"):
                self.differences.append(prompt.key)
                outcome = "answered" if value is not None else "malformed"
                return value, found.text, replace(found.exchange, outcome=outcome, reason=reason)
            return value, found.text, found.exchange
        value, reply, exchange = self._send(prompt, model, question)
        self.journal.record(exchange, prompt.text, reply.text)
        self.ledger.add(exchange)
        return value, reply.text, exchange

    def _send(
        self, prompt: Prompt, model: Model, question: Question[T]
    ) -> tuple[T | None, Reply, Exchange]:
        exchange = Exchange(
            prompt.key, prompt.role, question.prompt.version, model.name,
            content_hash(prompt.text), "", "failed",
        )  # fmt: skip
        started = time.monotonic()
        try:
            if self.exhausted:
                raise LimitReached(self.exhausted)
            with self.ledger.reserved(model, self._in_time(prompt)) as allowed:
                reply = model.ask(allowed)
        except ModelCallError as error:
            if isinstance(error, LimitReached):
                self.exhausted = str(error)
            usage = Usage(seconds=round(time.monotonic() - started, 3), attempts=0)
            reason = without_secrets(str(error))[:300]
            return None, Reply(""), replace(exchange, usage=usage, reason=reason)
        reply = replace(reply, text=without_secrets(reply.text))
        if not reply.text.strip():
            value, reason = None, "the reply is empty or refused"
        else:
            value, reason = _read(question.read, reply.text)
        if value is None and not reply.complete:
            reason = f"the reply was cut off; {reason}"
        done = replace(
            exchange,
            reply=content_hash(reply.text),
            usage=reply.usage,
            outcome="answered" if value is not None else "malformed",
            reason=reason[:300],
        )
        return value, reply, done

    def _in_time(self, prompt: Prompt) -> Prompt:
        if self.deadline is None:
            return prompt
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise LimitReached("the time is over")
        return replace(prompt, seconds=min(prompt.seconds, left))


def _complaint(question: Question[T], reason: str, text: str) -> str:
    """The question again, with what was wrong, and the reply as far as there is room for it."""
    asked = (
        f"{question.prompt.user}\nYour reply could not be used: {one_line(reason, 300)}. "
        "Reply again in the form that is asked for.\n"
    )
    for most in (9_000, 4_000, 1_500):
        whole = f"{asked}\nIt was:\n\n{fenced(clipped(text, most))}\n"
        if text and tokens_of(question.prompt.system) + tokens_of(whole) < MOST_TOKENS:
            return whole
    return asked


def _read(read: Callable[[str], T], text: str) -> tuple[T | None, str]:
    try:
        return read(text), ""
    except Malformed as complaint:
        return None, str(complaint)
