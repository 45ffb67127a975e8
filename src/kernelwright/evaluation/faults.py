"""What was wrong with a call, before anybody looks at its results."""

from kernelwright.evaluation.expected import Fault, describe
from kernelwright.execution import CallReport, Failure
from kernelwright.model import Reason, Workload


def failed(failure: Failure, workload: Workload) -> Fault:
    """A call that did not come back; inputs are mapped read-only, so writing one is a fault."""
    wrote = failure.reason is Reason.CRASH and "read-only arena" in failure.detail
    reason = Reason.WROTE_INPUT if wrote else failure.reason
    return Fault(reason, f"{failure.detail.rstrip('. ')}; on {describe(workload)}")


def fault_of(
    report: CallReport, workload: Workload, threads: int, who: str = "the kernel"
) -> Fault | None:
    """What a call that came back did beside computing; None: nothing wrong."""
    where = f"on {describe(workload)}"
    if report.code != 0:
        return Fault(Reason.ERROR_CODE, f"{who} returned {report.code}; {where}")
    if report.stray_threads > 0:
        text = f"{report.stray_threads} threads or processes were left after the call; {where}"
        return Fault(Reason.STRAY_THREADS, text)
    if report.mxcsr_changed:
        text = f"the call changed the rounding or denormal mode; {where}"
        return Fault(Reason.FLOATING_POINT_STATE, text)
    if report.team < threads:
        text = f"it runs on {report.team} of {threads} threads; {where}"
        return Fault(Reason.NOT_PARALLEL, text)
    return None
