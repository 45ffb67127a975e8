"""Two clocks of one call, the worker's and the judge's: what counts, and when they disagree."""

from collections.abc import Sequence
from statistics import median

from kernelwright.evaluation.expected import Fault
from kernelwright.execution import CallReport
from kernelwright.model import Reason

SLACK_US = 10.0
SLACK_SHARE = 0.01
"""What honest handshakes differ by: one of a null call is 4 to 7 us, of a streaming one 8 to 26."""
OUTSIDE_US = 100.0
"""Processor time of each thread of a team to wake before the call, and to be frozen after it."""
_DISAGREE_US = 50.0
_DISAGREE_SHARE = 0.05


def agreed_us(report: CallReport, overhead_us: float, slack_us: float = SLACK_US) -> float:
    """The timed process's finer clock as far as the judge's leaves it no room, plus head starts.

    The bracket less the handshake is at most 1 % and a few microseconds above what the worker says;
    whatever is beyond that counts as time of the kernel, and so does what the worker computed
    between waking its team and the call, and between its answer and its being frozen.

    Args:
        report: of the call.
        overhead_us: what the bracket of a call that does nothing is longer than the call.
        slack_us: what honest handshakes differ by.
    """
    bracket = (report.bracket_us - overhead_us - slack_us) / (1 + SLACK_SHARE)
    head_start = max(0.0, report.outside_us - report.threads * OUTSIDE_US)
    return max(report.elapsed_us, bracket) + head_start


def excess_us(report: CallReport, overhead_us: float) -> float:
    """How much longer a call took by the judge's clock than by the worker's, for no known reason.

    What the judge itself waited for a processor is taken off here and nowhere else: a worker can
    make the judge wait by keeping the processor busy, and would gain if `agreed_us` believed in it.
    """
    return report.bracket_us - report.late_us - report.elapsed_us - overhead_us


def dishonest(
    elapsed_us: Sequence[float], excess_us: Sequence[float], floor_us: float
) -> Fault | None:
    """Judge the times of a worker as a whole: physics, and the judge's own clock.

    Args:
        elapsed_us: the worker's, of every timed call.
        excess_us: `excess_us` of the same calls.
        floor_us: the least that physics allows.
    """
    if not elapsed_us:
        return None
    typical = median(elapsed_us)
    # A busy machine delays the judge often, a forged clock is off in every call. Where the two
    # disagree the judge's clock has counted, so that nothing was gained in the others.
    excess = min(excess_us)
    if typical < floor_us:
        text = f"{typical:.3g} us a call, but physics asks for {floor_us:.3g} us at least"
        return Fault(Reason.IMPOSSIBLE_TIME, text)
    if excess > max(_DISAGREE_US, _DISAGREE_SHARE * typical):
        text = (
            f"its own clock says {typical:.4g} us a call, the judge's {excess:.4g} us more "
            "than that, the handshake and what the judge waited for a processor"
        )
        return Fault(Reason.CLOCK_DISAGREES, text)
    return None
