"""A candidate's calls outside of the judge's clock: as the tools of `diagnosis` want them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernelwright.build import Artifact
from kernelwright.diagnosis import AloneCall, Found, Given, Space, sanitize
from kernelwright.evaluation.arguments import size_arguments
from kernelwright.evaluation.expected import describe
from kernelwright.evaluation.pool import Pool
from kernelwright.model import Candidate, FrozenMap, Rejected, Stage

if TYPE_CHECKING:
    from kernelwright.evaluation.preparation import Preparation

_LARGE_BYTES = 4 << 20
"""Inputs of a sanitizer's call are smaller, if some check workload's are."""


def alone_call(
    judge: Preparation, candidate: Candidate, artifact: Artifact, pool: Pool, case: int
) -> AloneCall | None:
    """A call on the inputs of a case, in another process; None where no such program is."""
    host = judge.ground.solo()
    if host is None:
        return None
    workload, signature = pool.workloads[case], pool.signature
    inputs = zip(signature.inputs, pool.given(case), strict=True)
    given = [Given(data, tensor.static) for tensor, data in inputs]
    spaces = [Space(place.nbytes) for place in pool.output_slots[case][0]]
    sizes = size_arguments(signature, workload)
    return AloneCall(host, artifact.path, candidate.entry, (*given, *spaces, *sizes))


def examine_memory(
    judge: Preparation, candidate: Candidate, artifact: Artifact
) -> FrozenMap[str, str] | Rejected:
    """Run a kernel for a GPU under sanitizers, on the largest of the small check workloads.

    Returns:
        By tool, `clean` or why nothing is known; empty where it runs on processors.
    """
    pool = judge.checks
    sizes = {n: sum(place.nbytes for place in pool.secrets[n].inputs) for n in pool.usable()}
    small = [n for n in sizes if sizes[n] <= _LARGE_BYTES]
    case = max(small, key=sizes.__getitem__) if small else min(sizes, key=sizes.__getitem__)
    call = alone_call(judge, candidate, artifact, pool, case)
    if call is None:
        return FrozenMap()
    result = sanitize(call)
    if isinstance(result, Found):
        text = f"{result.words}; on {describe(pool.workloads[case])}"
        return Rejected(Stage.ACCEPT, result.reason, text)
    return FrozenMap(result)
