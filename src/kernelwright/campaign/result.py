"""Results as JSON documents: the shapes that scripts rely on."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from kernelwright.model import (
    Candidate,
    Estimate,
    Machine,
    Measured,
    Profile,
    Rejected,
    Telemetry,
    WorkloadResult,
)
from kernelwright.sandbox import isolation_note
from kernelwright.store import to_json

Document = dict[str, Any]


def finite(value: float) -> float | None:
    """A number that JSON has; None for an error without bound (NaN where a number belongs)."""
    return value if math.isfinite(value) else None


def interval(estimate: Estimate) -> list[float]:
    """`[low, high]`."""
    return [estimate.low, estimate.high]


def workload_document(result: WorkloadResult) -> Document:
    """One workload: times in microseconds, speed-ups as baseline time over kernel time."""
    workload = result.workload
    document: Document = {
        "sizes": dict(workload.sizes),
        "scalars": dict(workload.scalars),
        "dtype": str(workload.dtype),
        "distribution": workload.distribution,
        "tier": workload.tier,
        "median_us": result.time_us.median,
        "ci_us": interval(result.time_us),
        "rounds": result.rounds,
        "within_target": result.within_target,
        "bound_us": None,
        "limiter": None,
        "fraction_of_bound": result.fraction_of_bound,
        "baselines": {peer.name: peer.time_us.median for peer in result.peers},
        "best_baseline": result.best_baseline.name if result.best_baseline else None,
        "speedup": {peer.name: peer.speedup.median for peer in result.peers},
        "speedup_ci": {peer.name: interval(peer.speedup) for peer in result.peers},
        "baseline_errors": {
            peer.name: {"passes_check": peer.passes_check, "error": finite(peer.error)}
            for peer in result.peers
        },
        "absent": dict(result.absent),
        "error": finite(result.error),
        "prepare_us": result.prepare_us,
        "prepared_bytes": result.prepared_bytes,
        "telemetry": telemetry_document(result.telemetry),
        "baseline_prepare_us": {
            peer.name: peer.prepare_us for peer in result.peers if peer.prepare_us is not None
        },
    }
    if result.bound is not None:
        document |= {
            "bound_us": result.bound.median_us,
            "limiter": result.bound.limiter,
            "bytes_moved": result.bound.bytes_moved,
            "operations": result.bound.operations,
            "roof": {"kernel": result.bound.roof, "rate": result.bound.roof_rate},
        }
    return document


def claim_document(verdict: Measured, searched: float | None) -> Document | None:
    """What is claimed against the best baseline, and what became of it on the way.

    Args:
        verdict: of an acceptance.
        searched: the winner's speed-up over the same baseline as the search saw it: from medians
            of other rounds, of the best of many. Fresh measurements tend to be smaller.
    """
    claim = verdict.claim
    if claim is None:
        return None
    accepted, confirmed = claim.accepted, claim.confirmed
    lost = None if confirmed is None else 1 - confirmed.median / accepted.median
    return {
        "baseline": claim.baseline,
        "outcome": claim.outcome,
        "searched": searched,
        "accepted": accepted.median,
        "accepted_ci": interval(accepted),
        "rounds": claim.rounds,
        "confirmed": None if confirmed is None else confirmed.median,
        "confirmed_ci": None if confirmed is None else interval(confirmed),
        "confirming_rounds": claim.confirming_rounds,
        "shrinkage": None if searched is None else 1 - accepted.median / searched,
        "shrinkage_confirmed": lost,
    }


def generality_document(verdict: Measured, checked: int) -> Document:
    """Speed-ups at held-out sizes beside those at the bench sizes, over the same baseline."""
    bench = {peer.name: peer.speedup.median for peer in verdict.workloads[0].peers}
    timed: list[Document] = []
    for result in verdict.workloads[1:]:
        for peer in result.peers:
            seen = bench.get(peer.name)
            timed.append(
                {
                    "sizes": dict(result.workload.sizes),
                    "distribution": result.workload.distribution,
                    "baseline": peer.name,
                    "speedup": peer.speedup.median,
                    "ci": interval(peer.speedup),
                    "bench_speedup": seen,
                    "gap": None if seen is None else peer.speedup.median / seen,
                    "collapsed": result.collapsed,
                }
            )
    collapsed = any(result.collapsed for result in verdict.workloads)
    return {"checked": checked, "timed": timed, "collapsed": collapsed}


def trust_document(verdict: Measured, checked: int, searched: float | None = None) -> Document:
    """How far the times of an acceptance carry: claim, generality, determinism, warnings."""
    return {
        "claim": claim_document(verdict, searched),
        "generality": generality_document(verdict, checked),
        "deterministic": verdict.deterministic,
        "sanitized": dict(verdict.sanitized),
        "warnings": list(verdict.warnings),
    }


def machine_document(machine: Machine) -> Document:
    """The facts of a machine that results are read with."""
    return {
        "name": machine.name,
        "cpu": machine.cpu,
        "cores": machine.cores,
        "vector_bits": machine.vector_bits,
        "l2_bytes": machine.l2_bytes,
        "l3_bytes": machine.l3_bytes,
        "os": machine.os,
        "isolation": machine.isolation,
        "isolation_note": isolation_note(machine.isolation),
        "read_gbs": machine.read_gbs,
        "copy_gbs": machine.copy_gbs,
        "triad_gbs": machine.triad_gbs,
        "fma_gflops": machine.fma_gflops,
        "bf16_gflops": machine.bf16_gflops,
        "toolchains": {t.name: t.version for t in machine.toolchains},
        "missing": dict(machine.missing),
        "versions": dict(machine.versions),
        "gpu": None if machine.gpu is None else asdict(machine.gpu),
    }


def profile_document(profile: Profile) -> Document:
    """A diagnosis: what limits a kernel, heaviest first, with its evidence and what helps."""
    return {"limit": str(profile.limit), **to_json(profile)["data"]}


def telemetry_document(telemetry: Telemetry | None) -> Document | None:
    """The state of the GPU while it was measured; None where nobody told."""
    if telemetry is None:
        return None
    return {**to_json(telemetry)["data"], "throttled": telemetry.throttled}


def rejected_by_stage(verdicts: Iterable[Measured | Rejected]) -> dict[str, int]:
    """How many were rejected at each stage."""
    counts: dict[str, int] = {}
    for verdict in verdicts:
        if isinstance(verdict, Rejected):
            counts[str(verdict.stage)] = counts.get(str(verdict.stage), 0) + 1
    return counts


def candidate_document(candidate: Candidate, path: str | None) -> Document:
    """The winner."""
    return {
        "candidate": candidate.identity,
        "family": candidate.family,
        "language": candidate.language,
        "path": path,
        "tunables": dict(candidate.tunables),
        "proposer": candidate.lineage.proposer,
    }


def suite_row(problem: str, document: Mapping[str, Any]) -> Document:
    """One row of a suite table from an `optimize` document."""
    bench = next((w for w in document["workloads"] if w["tier"] == "bench"), None)
    row: Document = {"problem": problem, "dtype": document["dtype"], "answer": "baseline"}
    row |= {"evaluations": document["evaluations"], "seconds": document["seconds"]}
    if bench is None or not bench["baselines"]:
        reason = document.get("advice", "no kernel was found")
        return row | {"sizes": document["sizes"], "reason": reason, "speedup_kernel": None}
    errors, best = bench["baseline_errors"], bench["best_baseline"]
    speedup = bench["speedup"][best]
    claim: Mapping[str, Any] = document.get("claim") or {}
    bound = bench["bound_us"]
    return row | {
        "sizes": bench["sizes"],
        "best_baseline": best,
        "baselines_run": sorted(bench["baselines"]),
        "baselines_pass": {name: errors[name]["passes_check"] for name in bench["baselines"]},
        "absent": bench["absent"],
        "baseline_us": bench["baselines"][best],
        "ours_us": bench["median_us"],
        "ci_us": bench["ci_us"],
        "bound_us": bound,
        "limiter": bench["limiter"],
        "roof": bench.get("roof"),
        "speedup_kernel": speedup,
        "ci": bench["speedup_ci"][best],
        "speedup_answer": max(1.0, speedup),
        "speedup_eager": bench["speedup"].get("eager"),
        "speedup_compile": bench["speedup"].get("compile"),
        "fraction_of_bound": bench["fraction_of_bound"],
        "contested": bound is not None and bench["baselines"][best] <= 4 * bound,
        "family": document["best"]["family"] if document["best"] else None,
        "prepare_us": bench.get("prepare_us"),
        "baseline_prepare_us": bench.get("baseline_prepare_us", {}).get(best),
        "within_target": bench["within_target"],
        "claim": claim.get("outcome"),
        "shrinkage": claim.get("shrinkage"),
        "heldout_gap": [timed["gap"] for timed in document.get("generality", {}).get("timed", ())],
        "warnings": document.get("warnings", []),
        "answer": "kernel" if speedup > 1 else "baseline",
    }
