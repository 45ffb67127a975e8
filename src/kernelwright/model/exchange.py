"""What a language model was asked, what it answered, and what that took."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Usage:
    """What one reply took, all attempts together."""

    input_tokens: int = 0
    cached_tokens: int = 0
    """Of the input tokens, those that the provider had seen before."""
    output_tokens: int = 0
    dollars: float | None = None
    """None: no price is known for the model."""
    seconds: float = 0.0
    attempts: int = 1
    """Requests that were sent, those refused by a rate limit included."""


ExchangeOutcome = Literal["answered", "malformed", "failed"]


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request to a language model and its reply; the texts are blobs of the archive."""

    key: str
    """`LOOP/ROUND/SLOT/STEP`: the same request of a replayed campaign has the same key."""
    role: str
    prompt_version: int
    model: str
    """`PROVIDER:NAME`."""
    request: str
    """Hash of the prompt's text."""
    reply: str
    """Hash of the reply's text; empty where there was none."""
    outcome: ExchangeOutcome
    """`malformed`: there was a text, and it is not what the role demands."""
    usage: Usage = field(default_factory=Usage)
    reason: str = ""
    """Why it is malformed, or why there is no reply."""
