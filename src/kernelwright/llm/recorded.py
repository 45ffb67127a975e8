"""Replies that were given before: no network, nothing spent."""

from collections.abc import Mapping
from dataclasses import dataclass

from kernelwright.errors import ModelCallError
from kernelwright.llm.model import Prompt, Reply
from kernelwright.model import Exchange, content_hash


@dataclass(frozen=True, slots=True)
class Recording:
    """One exchange with its reply."""

    exchange: Exchange
    text: str
    """Of the reply; empty where there was none."""

    def answers(self, prompt: Prompt) -> bool:
        """Whether exactly this was asked."""
        return self.exchange.request == content_hash(prompt.text)


class RecordedModel:
    """Gives the recorded reply with the prompt's key.

    Args:
        name: of the model that it stands for.
        recordings: by key.
    """

    def __init__(self, name: str, recordings: Mapping[str, Recording]) -> None:
        self.name = name
        self._recordings = recordings

    def ask(self, prompt: Prompt) -> Reply:
        """See `Model`."""
        found = self._recordings.get(prompt.key)
        if found is None:
            raise ModelCallError(f"nothing is recorded for {prompt.key or 'a prompt without key'}")
        if found.exchange.outcome == "failed":
            raise ModelCallError(found.exchange.reason)
        return Reply(found.text, found.exchange.usage)

    def dollars(self, input_tokens: int, output_tokens: int) -> float | None:
        """Nothing: it was paid for before."""
        return 0.0
