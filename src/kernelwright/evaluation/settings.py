"""How thorough the judge is."""

from dataclasses import dataclass, field

from kernelwright.execution import Limits
from kernelwright.numerics import AcceptRule, ConfirmRule, ScreenRule


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """Counts, budgets and limits of screening and acceptance; the defaults are for a campaign."""

    secret_sets: int = 20
    """Most input sets with expected values of the bench workload. A worker meets each once, so
    with few of them workers are started anew more often."""
    slots: int = 3
    """Places that inputs (and outputs) rotate through."""
    memory_bytes: int = 4 << 30
    """Most that the pools of a bench workload may hold."""
    screen: ScreenRule = field(default_factory=ScreenRule)
    screen_seconds: float = 3.0
    """Longest that timed rounds of one screening take."""
    accept: AcceptRule = field(default_factory=AcceptRule)
    accept_seconds: float = 12.0
    """Longest that the rounds of acceptance take; when it ends them, the result says so."""
    duel_calls: int = 4
    """Calls of each of two kernels in a round, on as many secret sets, between two starts of their
    processes. One where baselines are beside them: their calls take longer than a start."""
    confirm: ConfirmRule = field(default_factory=ConfirmRule)
    confirm_seconds: float = 5.0
    heldout: int = 4
    """Secret sizes checked for right results at acceptance."""
    heldout_timed: int = 1
    """The largest of them also timed against a baseline."""
    collapse: float = 3.0
    """A held-out speed-up below 1 and this many times below the bench speed-up is a collapse."""
    flush_factor: float = 2.0
    """Bytes flushed before a timed call, in last-level caches."""
    sample_blocks: int = 24
    """Random blocks of each output that screening poisons and verifies, beside both ends."""
    sample_elements: int = 2048
    """Elements in such a block."""
    baselines: tuple[str, ...] | None = None
    """Names of baselines to run; None: all."""
    limits: Limits = field(default_factory=lambda: Limits(call_s=5.0))

    @staticmethod
    def quick() -> "JudgeSettings":
        """For tests and first looks: few rounds, small pools; intervals are wide."""
        return JudgeSettings(
            secret_sets=6,
            slots=2,
            screen=ScreenRule(first=6, most=8),
            accept=AcceptRule(least=12, most=16),
            accept_seconds=8.0,
            confirm=ConfirmRule(most=16),
            confirm_seconds=3.0,
            heldout=2,
        )

    @staticmethod
    def comparing(seconds: float = 60.0) -> "JudgeSettings":
        """For two kernels side by side: rounds until their ratio is known to 1 %, or time is up.

        Args:
            seconds: longest that the rounds of one pair take.
        """
        return JudgeSettings(accept=AcceptRule(most=2000), accept_seconds=seconds)

    @staticmethod
    def thorough() -> "JudgeSettings":
        """For published results: the interval nearly always reaches its target."""
        return JudgeSettings(
            accept=AcceptRule(least=100, most=400),
            accept_seconds=120.0,
            confirm=ConfirmRule(most=100),
            confirm_seconds=30.0,
            heldout=6,
            heldout_timed=2,
        )
