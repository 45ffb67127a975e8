"""The one seam to language models: a prompt in, a reply and its usage out."""

import os
from dataclasses import dataclass, field
from typing import Protocol

from kernelwright.model import Usage

_BYTES_PER_TOKEN = 3
"""Fewer than any common tokenizer needs for English or C++ (3.2 to 4.5), so that an estimate is
too high rather than too low."""
_SECRET_ENDINGS = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")
_SHORTEST_SECRET = 8


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request."""

    system: str
    """Who answers, and by which rules."""
    user: str
    role: str = ""
    """Of whoever asks, such as `coder`; for logs and names of files."""
    key: str = ""
    """`LOOP/ROUND/SLOT/STEP`; equal in a replay."""
    max_output_tokens: int = 16_000
    seconds: float = 600.0
    """Longest wait for the reply, all attempts together."""

    @property
    def text(self) -> str:
        """All that the model reads, as it is archived."""
        return f"{self.system}\n\n---\n\n{self.user}"

    @property
    def tokens(self) -> int:
        """An estimate from above."""
        return tokens_of(self.text)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    text: str
    usage: Usage = field(default_factory=Usage)
    complete: bool = True
    """False when it was cut off, by the limit on its length or by the provider."""


class Model(Protocol):
    """A language model, or whoever answers in its place. Called from several threads at once."""

    name: str
    """`PROVIDER:NAME`."""

    def ask(self, prompt: Prompt) -> Reply:
        """The reply, after as many attempts as are sensible.

        Raises:
            ModelCallError: there is none.
            ModelError: there will never be one (a wrong key, a name that does not exist).
        """
        ...

    def dollars(self, input_tokens: int, output_tokens: int) -> float | None:
        """What a request of this length would cost; None: no price is known."""
        ...


def tokens_of(text: str) -> int:
    """Tokens of a text, estimated from above."""
    return -(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN)


def without_secrets(text: str) -> str:
    """A text with the values of keys in the environment blotted out.

    Providers quote keys in their complaints; none of that may get into a log or an archive.
    """
    for name, value in os.environ.items():
        if name.upper().endswith(_SECRET_ENDINGS) and len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, f"[{name}]")
    return text
