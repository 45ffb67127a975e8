"""What models cost, and the limits that are held before a request is sent."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from kernelwright.errors import LimitReached
from kernelwright.llm.model import Model, Prompt
from kernelwright.model import Exchange

_LEAST_OUTPUT = 2_000
"""Output tokens below which a request is not worth sending."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Most that a campaign may spend on models; None: no such limit."""

    dollars: float | None = None
    tokens: int | None = None
    """Input and output together."""


class Ledger:
    """Adds up what was spent; reserves the most that a request can take before it is sent.

    A request that fails keeps nothing of its reservation: providers do not bill those.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.exchanges: list[Exchange] = []
        self._reserved: dict[str, tuple[int, float]] = {}
        self._lock = threading.Lock()

    @property
    def tokens(self) -> int:
        """Spent so far, input and output."""
        return sum(e.usage.input_tokens + e.usage.output_tokens for e in self.exchanges)

    @property
    def dollars(self) -> float:
        """Spent so far on models whose price is known."""
        return sum(e.usage.dollars or 0.0 for e in self.exchanges)

    def add(self, exchange: Exchange) -> None:
        """Count one exchange, made now or recorded before."""
        with self._lock:
            self.exchanges.append(exchange)

    @contextmanager
    def reserved(self, model: Model, prompt: Prompt) -> Iterator[Prompt]:
        """The prompt, with a shorter reply where that keeps within the limits; held until the end.

        Raises:
            LimitReached: even the shortest reply of use might break a limit.
        """
        with self._lock:
            allowed = self._allowed(model, prompt)
            cost = model.dollars(prompt.tokens, allowed) or 0.0
            self._reserved[prompt.key] = (prompt.tokens + allowed, cost)
        try:
            yield replace(prompt, max_output_tokens=allowed)
        finally:
            with self._lock:
                self._reserved.pop(prompt.key, None)

    def _allowed(self, model: Model, prompt: Prompt) -> int:
        """Output tokens that the limits leave."""
        allowed, held = prompt.max_output_tokens, list(self._reserved.values())
        if self.limits.tokens is not None:
            left = self.limits.tokens - self.tokens - sum(tokens for tokens, _ in held)
            allowed = min(allowed, left - prompt.tokens)
            if allowed < min(_LEAST_OUTPUT, prompt.max_output_tokens):
                raise LimitReached(f"the limit of {self.limits.tokens} tokens is reached")
        if self.limits.dollars is not None:
            left = self.limits.dollars - self.dollars - sum(cost for _, cost in held)
            while (model.dollars(prompt.tokens, allowed) or 0.0) > left:
                allowed //= 2
                if allowed < min(_LEAST_OUTPUT, prompt.max_output_tokens):
                    raise LimitReached(f"the limit of ${self.limits.dollars:g} is reached")
        return allowed

    def summary(self) -> dict[str, Any]:
        """Totals, by model and by role, as plain data."""
        return {
            **_totals(self.exchanges),
            "by_model": self._by("model"),
            "by_role": self._by("role"),
        }

    def _by(self, field: str) -> dict[str, Any]:
        names = dict.fromkeys(getattr(e, field) for e in self.exchanges)
        return {n: _totals([e for e in self.exchanges if getattr(e, field) == n]) for n in names}


def _totals(exchanges: list[Exchange]) -> dict[str, Any]:
    prices = [e.usage.dollars for e in exchanges if e.usage.dollars is not None]
    return {
        "requests": len(exchanges),
        "malformed": sum(e.outcome == "malformed" for e in exchanges),
        "failed": sum(e.outcome == "failed" for e in exchanges),
        "input_tokens": sum(e.usage.input_tokens for e in exchanges),
        "cached_tokens": sum(e.usage.cached_tokens for e in exchanges),
        "output_tokens": sum(e.usage.output_tokens for e in exchanges),
        "dollars": round(sum(prices), 6) if prices else None,
        "seconds": round(sum(e.usage.seconds for e in exchanges), 2),
    }
