"""A small set of Nsight Compute's metrics: asked for, and read from its CSV.

Which ones: times and throughputs, what makes global and shared accesses slow, and why warps wait;
each told small kernels apart that are slow for one reason (`tests/profiles`).
"""

import csv
from collections.abc import Sequence

from kernelwright.diagnosis.alone import AloneCall, run_alone
from kernelwright.diagnosis.tools import find_tool
from kernelwright.model import FrozenMap

TIME = "gpu__time_duration.sum"
DRAM = "dram__throughput.avg.pct_of_peak_sustained_elapsed"
L2 = "lts__throughput.avg.pct_of_peak_sustained_elapsed"
L1 = "l1tex__throughput.avg.pct_of_peak_sustained_active"
READ, WRITTEN = "dram__bytes_read.sum", "dram__bytes_write.sum"
WARPS = "sm__warps_active.avg.pct_of_peak_sustained_active"
ISSUE = "smsp__issue_active.avg.pct_of_peak_sustained_active"
TENSOR = "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active"
LOAD_SECTORS = "smsp__sass_average_data_bytes_per_sector_mem_global_op_ld.pct"
STORE_SECTORS = "smsp__sass_average_data_bytes_per_sector_mem_global_op_st.pct"
CONFLICTS = "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum"
WAVEFRONTS = "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum"
LOCAL = (
    "l1tex__t_bytes_pipe_lsu_mem_local_op_ld.sum",
    "l1tex__t_bytes_pipe_lsu_mem_local_op_st.sum",
)
GLOBAL_LOADED = "l1tex__t_bytes_pipe_lsu_mem_global_op_ld.sum"
WAIT = "smsp__average_warp_latency_per_inst_issued.ratio"
_STALL = "smsp__average_warps_issue_stalled_{}_per_issue_active.ratio"
STALLS = {
    name: _STALL.format(name)
    for name in (
        "long_scoreboard", "short_scoreboard", "barrier", "membar", "lg_throttle", "mio_throttle",
        "math_pipe_throttle", "wait", "not_selected",
    )
}  # fmt: skip
METRICS = (
    TIME, DRAM, L2, L1, READ, WRITTEN, WARPS, ISSUE, TENSOR, LOAD_SECTORS, STORE_SECTORS, CONFLICTS,
    WAVEFRONTS, *LOCAL, GLOBAL_LOADED, WAIT, *STALLS.values(),
)  # fmt: skip
_MOST_LAUNCHES = 64
_TIMEOUT_S = 120.0
_SCALES = {
    "nsecond": 1.0, "usecond": 1e3, "msecond": 1e6, "ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9,
    "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9,
}  # fmt: skip
"""To nanoseconds and bytes."""


def counters_of(call: AloneCall) -> dict[str, FrozenMap[str, float]] | str:
    """Metrics of the longest launch of each kernel in one call, or why there are none.

    Every launch is run many times, on cold caches, at the clocks that the GPU happens to have.
    """
    tool = find_tool("ncu")
    if tool is None:
        return "Nsight Compute (ncu) is not installed"
    options = ["--csv", "--page", "raw", "--clock-control", "none", "--profile-from-start", "off"]
    options += ["--print-kernel-base", "mangled"]
    options += ["--launch-count", str(_MOST_LAUNCHES), "--metrics", ",".join(METRICS)]
    outcome = run_alone(call, [tool, *options], timeout_s=_TIMEOUT_S)
    if "ERR_NVGPUCTRPERM" in outcome.log + outcome.output:
        return (
            "the driver lets only administrators read its counters (NVIDIA calls this "
            "ERR_NVGPUCTRPERM, and says how to change it)"
        )
    found = parse_counters(outcome.log)
    if found:
        return found
    if outcome.code is None:
        return f"Nsight Compute was stopped after {_TIMEOUT_S:.0f} s"
    return f"Nsight Compute measured nothing: {_first_complaint(outcome.log + outcome.output)}"


def parse_counters(text: str) -> dict[str, FrozenMap[str, float]]:
    """By kernel, metrics in nanoseconds, bytes, percent and ratios: of its longest launch.

    Args:
        text: what `ncu --csv --page raw` writes: remarks, names, units, a row for each launch.
    """
    lines = [line for line in text.splitlines() if line.startswith('"')]
    rows = list(csv.reader(lines))
    if len(rows) < 3 or "Kernel Name" not in rows[0]:
        return {}
    names, units = rows[0], rows[1]
    found: dict[str, FrozenMap[str, float]] = {}
    for row in rows[2:]:
        values = _numbers(names, units, row)
        kernel = row[names.index("Kernel Name")]
        before = found.get(kernel)
        if before is None or values.get(TIME, 0) > before.get(TIME, 0):
            found[kernel] = FrozenMap(values)
    return found


def _numbers(names: Sequence[str], units: Sequence[str], row: Sequence[str]) -> dict[str, float]:
    values: dict[str, float] = {}
    for name, unit, text in zip(names, units, row, strict=False):
        if name not in METRICS:
            continue
        try:
            values[name] = float(text.replace(",", "")) * _SCALES.get(unit, 1.0)
        except ValueError:  # `n/a`: this chip does not count it
            continue
    return values


def _first_complaint(text: str) -> str:
    lines = [line for line in text.splitlines() if "==ERROR==" in line]
    return lines[0].removeprefix("==ERROR==").strip()[:300] if lines else "it gave no reason"
