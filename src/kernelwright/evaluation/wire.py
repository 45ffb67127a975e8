"""Records that the judge and the oracle exchange, as JSON values."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from kernelwright.model import Dtype, FrozenMap, Workload
from kernelwright.numerics import Comparison

Json = dict[str, Any]


def workload_to_json(workload: Workload) -> Json:
    """As plain data."""
    return {
        "problem": workload.problem,
        "dtype": str(workload.dtype),
        "sizes": dict(workload.sizes),
        "scalars": dict(workload.scalars),
        "distribution": workload.distribution,
        "tier": workload.tier,
    }


def workload_from_json(data: Mapping[str, Any]) -> Workload:
    """The record that `workload_to_json` wrote."""
    return Workload(
        data["problem"],
        Dtype(data["dtype"]),
        FrozenMap(data["sizes"]),
        FrozenMap(data["scalars"]),
        data["distribution"],
        data["tier"],
    )


def comparison_to_json(comparison: Comparison) -> Json:
    """As plain data (non-finite numbers as Python's JSON writes them)."""
    return asdict(comparison)


def comparison_from_json(data: Mapping[str, Any]) -> Comparison:
    """The record that `comparison_to_json` wrote."""
    fields = dict(data)
    fields["index"] = tuple(fields["index"])
    fields["worst_index"] = tuple(fields["worst_index"])
    return Comparison(**fields)
