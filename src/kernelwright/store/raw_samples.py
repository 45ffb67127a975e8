"""Raw times of a verdict, kept beside its document as compressed little-endian doubles."""

import zlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import replace
from sys import byteorder
from typing import Any

from kernelwright.model import FrozenMap, Measured, Rejected, Verdict


def without_samples(verdict: Verdict) -> Verdict:
    """The verdict without raw times."""
    if isinstance(verdict, Rejected):
        return verdict
    bare = tuple(replace(w, samples_us=FrozenMap[str, Any]()) for w in verdict.workloads)
    return replace(verdict, workloads=bare)


def sample_rows(verdict_id: int, verdict: Verdict) -> Iterable[dict[str, Any]]:
    """Rows of the table of samples: one for each workload and role, compressed doubles."""
    workloads = verdict.workloads if isinstance(verdict, Measured) else ()
    for place, result in enumerate(workloads):
        for role, values in result.samples_us.items():
            packed = zlib.compress(_little_endian(array("d", values)).tobytes())
            yield {"verdict": verdict_id, "workload": place, "role": role, "values": packed}


def with_samples(verdict: Measured, rows: Sequence[Any]) -> Measured:
    """The verdict with the raw times of these rows."""
    by_workload: dict[int, dict[str, tuple[float, ...]]] = {}
    for row in rows:
        values = array("d")
        values.frombytes(zlib.decompress(row.values))
        by_workload.setdefault(row.workload, {})[row.role] = tuple(_little_endian(values))
    workloads = tuple(
        replace(result, samples_us=FrozenMap(by_workload.get(place, {})))
        for place, result in enumerate(verdict.workloads)
    )
    return replace(verdict, workloads=workloads)


def _little_endian(values: "array[float]") -> "array[float]":
    if byteorder == "big":
        values.byteswap()
    return values
