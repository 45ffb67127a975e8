"""Simulated rounds: two kernels timed side by side on machines that misbehave in known ways.

Every model draws what a call takes, in units of the kernel's time on an idle machine. The order of
the two calls of a round is drawn like the judge draws it. `gain` is the true speed-up.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Times: TypeAlias = NDArray[np.float64]
Noise: TypeAlias = Callable[[np.random.Generator, int], Times]
"""Factors on time, one per call: rounds by the two calls of a round, in the order of calling."""


def quiet(rng: np.random.Generator, rounds: int) -> Times:
    """Ratios spread by 3 %, as on an idle machine; one call in twenty is far off."""
    body = np.exp(0.02 * rng.standard_normal((rounds, 2)))
    return body + (rng.random((rounds, 2)) < 0.05) * rng.exponential(1.0, (rounds, 2))


def skewed(rng: np.random.Generator, rounds: int) -> Times:
    """A long tail to one side: a spread of 10 %, one call in five delayed by others' work."""
    body = np.exp(0.1 * rng.standard_normal((rounds, 2)))
    return body + (rng.random((rounds, 2)) < 0.2) * rng.exponential(2.0, (rounds, 2))


def drifting(rng: np.random.Generator, rounds: int) -> Times:
    """The machine changes its speed by 5 % from call to call, without coming back."""
    walk = np.cumsum(0.05 * rng.standard_normal(2 * rounds)).reshape(rounds, 2)
    return quiet(rng, rounds) * np.exp(walk)


def bimodal(rng: np.random.Generator, rounds: int) -> Times:
    """Three calls in ten take 1.9 times as long: two threads met on one core."""
    return quiet(rng, rounds) * np.where(rng.random((rounds, 2)) < 0.3, 1.9, 1.0)


def autocorrelated(rng: np.random.Generator, rounds: int) -> Times:
    """The machine's speed follows a first-order autoregression: 0.9 from call to call, sd 10 %."""
    state = np.empty(2 * rounds)
    state[0] = rng.standard_normal()
    steps = np.sqrt(1 - 0.9**2) * rng.standard_normal(2 * rounds)
    for n in range(1, 2 * rounds):
        state[n] = 0.9 * state[n - 1] + steps[n]
    return quiet(rng, rounds) * np.exp(0.1 * state.reshape(rounds, 2))


def bursts(rng: np.random.Generator, rounds: int) -> Times:
    """Other load comes and goes for about thirty calls at a time, and doubles the times."""
    switches = rng.random(2 * rounds) < 1 / 30
    busy = (np.cumsum(switches) % 2).reshape(rounds, 2)
    return quiet(rng, rounds) * np.where(busy == 1, 2.0, 1.0)


def second_is_slower(rng: np.random.Generator, rounds: int) -> Times:
    """An order effect: whoever is called second in a round takes 10 % longer."""
    return quiet(rng, rounds) * np.array([1.0, 1.1])


def fresh_processes(rng: np.random.Generator, rounds: int) -> Times:
    """Each call's process is 5 % faster or slower than others for as long as it lives: a round."""
    return quiet(rng, rounds) * np.exp(0.05 * rng.standard_normal((rounds, 2)))


MODELS: dict[str, Noise] = {
    model.__name__: model
    for model in (
        quiet, skewed, drifting, bimodal, autocorrelated, bursts, second_is_slower,
        fresh_processes,
    )
}  # fmt: skip


def speedups(
    noise: Noise, rng: np.random.Generator, rounds: int, gain: float = 1.0, process_sd: float = 0.0
) -> Times:
    """Rival over candidate, one ratio a round.

    Args:
        noise: of the machine.
        rng: decides everything.
        rounds: how many.
        gain: how many times as fast the candidate truly is.
        process_sd: spread of a factor that stays for all rounds, as if each kernel were timed in
            one process only: what the judge avoids, as no number of rounds averages it away.
    """
    factors = noise(rng, rounds)
    first = rng.random(rounds) < 0.5
    candidate = np.where(first, factors[:, 0], factors[:, 1])
    rival = np.where(first, factors[:, 1], factors[:, 0]) * gain
    return rival / candidate * np.exp(process_sd * rng.standard_normal())
