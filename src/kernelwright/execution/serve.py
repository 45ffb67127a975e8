"""The serving side of a Python role."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Handler = Callable[[dict[str, Any]], dict[str, Any]]
TimedHandler = Callable[[dict[str, Any]], Callable[[], None]]


def arena_view(name: str, offset: int = 0, nbytes: int | None = None) -> NDArray[np.uint8]:
    """View of an attached arena; read-only when the arena was sealed before it was attached.

    Raises:
        KeyError: no arena of that name is attached.
    """
    raise NotImplementedError


def serve(
    handlers: Mapping[str, Handler],
    timed: Mapping[str, TimedHandler],
    flush: Callable[[int], None],
) -> None:
    """Answer the judge until it hangs up.

    Args:
        handlers: op → function of the payload that returns the reply. What it raises becomes an
            error reply; the role goes on.
        timed: op → function of the payload that returns the callable to time.
        flush: Evicts that many bytes from the caches with the team that the callables use: a role
            with torch uses torch, so that no second OpenMP runtime comes in.
    """
    raise NotImplementedError
