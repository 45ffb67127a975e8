"""What slows down kernels on an NVIDIA GPU: launches, code, and metrics of Nsight Compute."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from kernelwright.diagnosis import counters
from kernelwright.diagnosis.occupancy import limits_of
from kernelwright.diagnosis.situation import Hint, Situation
from kernelwright.model import KernelFacts, Limit

LATENCY_NS = 700.0
"""What an answer of a GPU's memory takes; by Little's law it says what must be on the way."""
_LIGHT = 0.4
"""Weight of what only the look of the code says."""
Rule = Callable[[Situation, KernelFacts], Iterator[Hint]]


def launch_findings(s: Situation) -> Iterator[Hint]:
    """Launches as such."""
    launches, share = sum(kernel.launches for kernel in s.kernels), _launching(s)
    if not share:
        return
    each = s.gpu.launch_us if s.gpu else 0.0
    yield Hint(
        Limit.LAUNCH,
        share,
        f"a call makes {launches} launches, of which each takes {each:.1f} us even if it does "
        "nothing",
        {"launches": launches, "us a launch": each, "us a call": s.time_us},
    )


def _launching(s: Situation) -> float:
    """Share of the time that several launches take by themselves."""
    launches = sum(kernel.launches for kernel in s.kernels)
    if s.gpu is None or launches < 2:
        return 0.0
    return min(1.0, launches * s.gpu.launch_us / s.time_us)


def kernel_findings(s: Situation) -> Iterator[Hint]:
    """Of each `__global__` function, weighed by its share of the time."""
    total = sum(kernel.us for kernel in s.kernels)
    for kernel in s.kernels:
        share = kernel.us / total if total > 0 else 1 / len(s.kernels)
        share *= 1 - _launching(s)
        for rule in _RULES:
            for hint in rule(s, kernel):
                sentence = f"{kernel.name}: {hint.sentence}"
                yield replace(hint, weight=hint.weight * share, sentence=sentence)


def _more_bytes(s: Situation, kernel: KernelFacts) -> Iterator[Hint]:
    c = kernel.counters
    if counters.DRAM not in c:
        return
    moved = c.get(counters.READ, 0.0) + c.get(counters.WRITTEN, 0.0)
    busiest = max(c[counters.DRAM], c.get(counters.L2, 0.0)) / 100
    spilled = sum(c.get(name, 0.0) for name in counters.LOCAL)
    if spilled > c.get(counters.GLOBAL_LOADED, 0.0):  # these are the bytes
        return
    if s.bytes_moved and moved > 1.3 * s.bytes_moved and busiest > 0.5:
        yield Hint(
            Limit.MEMORY,
            busiest * (1 - s.bytes_moved / moved),
            f"it moves {moved / s.bytes_moved:.1f} times the bytes that are necessary",
            {"bytes moved": moved, "necessary bytes": s.bytes_moved, "busiest, %": 100 * busiest},
        )


def _grid(s: Situation, kernel: KernelFacts) -> Iterator[Hint]:
    if s.gpu is None or not kernel.grid or not kernel.block:
        return
    many, resident = s.gpu.multiprocessors, kernel.blocks_per_multiprocessor
    evidence = {
        "blocks": float(kernel.grid),
        "multiprocessors": float(many),
        "threads of a block": float(kernel.block),
        "blocks that fit on one": float(resident),
    }
    if kernel.grid < many:
        text = f"{kernel.grid} blocks leave most of {many} multiprocessors without work"
        yield Hint(Limit.OCCUPANCY, s.slack * (1 - kernel.grid / many), text, evidence)
        return
    waves = kernel.grid / (many * resident) if resident else 0.0
    tail = waves - int(waves)
    if 1 < waves < 4 and 0 < tail < 0.5:
        lost = (1 - tail) / (int(waves) + 1)
        text = f"{waves:.2f} waves of blocks: in the last one most multiprocessors have nothing"
        yield Hint(Limit.OCCUPANCY, s.slack * lost, text, {**evidence, "waves": waves})


def _resident(s: Situation, kernel: KernelFacts) -> Iterator[Hint]:
    limits = limits_of(s.gpu.architecture) if s.gpu else None
    if limits is None or not kernel.blocks_per_multiprocessor or not kernel.block:
        return
    assert s.gpu is not None
    warps = -(-kernel.block // 32)
    fitting = kernel.blocks_per_multiprocessor * warps
    there = min(fitting, kernel.grid * warps / s.gpu.multiprocessors) if kernel.grid else fitting
    share = there / limits.warps
    if share >= 0.25 or (kernel.grid and kernel.grid < s.gpu.multiprocessors):
        return
    if kernel.mix.get("matrix"):  # few fat warps are how matrix instructions are fed
        return
    why = f"{kernel.occupancy_limiter} leave room for no more" if there == fitting else (
        "the grid is too small for more"
    )  # fmt: skip
    yield Hint(
        Limit.OCCUPANCY,
        s.slack * (1 - 4 * share),
        f"{there:.0f} of {limits.warps} warps are resident on a multiprocessor: {why}",
        {
            "resident warps": there,
            "warps that it holds": limits.warps,
            "registers a thread": kernel.registers,
            "shared bytes a block": kernel.shared_bytes,
        },
    )


def _spills(s: Situation, kernel: KernelFacts) -> Iterator[Hint]:
    mix, c = kernel.mix, kernel.counters
    local = mix.get("local loads", 0) + mix.get("local stores", 0)
    if not (local or kernel.spill_bytes):
        return
    evidence = {"bytes spilled": float(kernel.spill_bytes), "local accesses in the code": local}
    if counters.L1 in c:
        traffic = sum(c.get(name, 0.0) for name in counters.LOCAL)
        share = traffic / max(1.0, traffic + c.get(counters.GLOBAL_LOADED, 0.0))
        busiest = max(c.get(name, 0.0) for name in (counters.DRAM, counters.L2, counters.L1)) / 100
        weight = share * busiest
        evidence["bytes to and from local memory"] = traffic
    else:
        looped = mix.get("loop local loads", 0) + mix.get("loop local stores", 0)
        others = mix.get("loop global loads", 0) + mix.get("loop float", 0)
        weight = 0.6 * looped / max(1, looped + others) if looped else 0.15
    text = "values that do not fit into registers travel to local memory and back"
    yield Hint(Limit.SPILLS, weight, text, evidence)


def _sectors(s: Situation, kernel: KernelFacts) -> Iterator[Hint]:
    c = kernel.counters
    for way, name in (("loads", counters.LOAD_SECTORS), ("stores", counters.STORE_SECTORS)):
        used = c.get(name, 0.0) / 100  # 0: there are none
        busiest = max(c.get(counters.L2, 0.0), c.get(counters.L1, 0.0)) / 100
        if 0 < used < 0.6:
            yield Hint(
                Limit.UNCOALESCED,
                (1 - used) * busiest,
                f"its {way} use {32 * used:.0f} of the 32 bytes of a sector",
                {"bytes used of a sector": 32 * used, "busiest cache, %": 100 * busiest},
            )


def _narrow(s: Situation, kernel: KernelFacts) -> Iterator[Hint]:
    mix = kernel.mix
    prefix = "loop " if any(name.startswith("loop global") for name in mix) else ""
    ways = ("loads", "stores")
    total = sum(mix.get(f"{prefix}global {way}", 0) for way in ways)
    wide = sum(
        mix.get(f"{prefix}global {way} {bits} bit", 0) for way in ways for bits in (64, 128, 256)
    )
    if total and wide / total < 0.5 and s.memory_us > s.compute_us:
        evidence = {"global accesses in the code": float(total), "of 8 bytes or more": float(wide)}
        text = "most of its accesses to global memory are of 4 bytes or fewer a thread"
        yield Hint(Limit.NARROW, _LIGHT * s.memory_share * (1 - wide / total), text, evidence)


def _conflicts(s: Situation, kernel: KernelFacts) -> Iterator[Hint]:
    c = kernel.counters
    waves = c.get(counters.WAVEFRONTS, 0.0)
    share = c.get(counters.CONFLICTS, 0.0) / waves if waves else 0.0
    if share > 0.1:
        yield Hint(
            Limit.BANK_CONFLICTS,
            share * c.get(counters.L1, 0.0) / 100,
            f"{share:.0%} of the cycles of shared memory go to lanes that meet in a bank",
            {"conflicts": c[counters.CONFLICTS], "cycles of shared memory": waves},
        )


def _barriers(s: Situation, kernel: KernelFacts) -> Iterator[Hint]:
    share, barriers = _waits(kernel, "barrier", "membar"), kernel.mix.get("barriers", 0)
    looped = kernel.mix.get("loop barriers", 0)
    evidence = {"barriers in the code": float(barriers), "of these in loops": float(looped)}
    if share is not None:
        text = f"warps spend {share:.0%} of their time at barriers"
        yield Hint(Limit.SYNCHRONISATION, share, text, {**evidence, "share of the waits": share})
    elif looped:
        few = kernel.mix.get("loop instructions", 0) / looped
        text = f"a barrier for every {few:.0f} instructions of its innermost loops"
        yield Hint(Limit.SYNCHRONISATION, _LIGHT * s.slack * min(1, 30 / few), text, evidence)


def _memory_waits(s: Situation, kernel: KernelFacts) -> Iterator[Hint]:
    """Waits for memory: because of atomics, or because too little is on its way."""
    c, atomics = kernel.counters, kernel.mix.get("atomics", 0)
    share = _waits(kernel, "long_scoreboard")
    if share is not None:
        busiest = max(c.get(name, 0.0) for name in (counters.DRAM, counters.L2)) / 100
        limit = Limit.ATOMICS if atomics else Limit.LATENCY
        what = "answers of memory" + (", atomic additions among them" if atomics else "")
        yield Hint(
            limit,
            share * (1 - busiest) * _at_work(s, kernel),
            f"warps spend {share:.0%} of their time waiting for {what}, while memory is "
            f"{busiest:.0%} busy",
            {"share of the waits": share, "busiest memory, %": 100 * busiest, "atomics": atomics},
        )
        return
    if atomics:
        text = "it adds atomically"
        yield Hint(Limit.ATOMICS, _LIGHT * s.slack, text, {"atomics in the code": float(atomics)})
    yield from _in_flight(s, kernel)


def _in_flight(s: Situation, kernel: KernelFacts) -> Iterator[Hint]:
    """By Little's law: bytes on their way against rate times latency.

    They explain the time as far as the memory's rate is near what they allow.
    """
    each, resident = kernel.mix.get("bytes in flight", 0), kernel.blocks_per_multiprocessor
    if s.gpu is None or not each or not resident or kernel.mix.get("asynchronous copies"):
        return
    blocks = min(resident, kernel.grid / s.gpu.multiprocessors) if kernel.grid else resident
    there = each * blocks * kernel.block
    needed = s.gpu.peak_gbs * LATENCY_NS / s.gpu.multiprocessors
    allowed, busy = there / needed, each * max(1.0, blocks) * kernel.block / needed
    if allowed < 1 and busy < 1:
        yield Hint(
            Limit.LATENCY,
            s.slack * (1 - busy) * min(1.0, s.memory_share / allowed) * _at_work(s, kernel),
            f"{there / 1024:.0f} KiB are on their way to a multiprocessor, and memory needs "
            f"{needed / 1024:.0f} to be busy",
            {"bytes in flight a thread": each, "a multiprocessor": there, "needed": needed},
        )


def _issue(s: Situation, kernel: KernelFacts) -> Iterator[Hint]:
    c, mix = kernel.counters, kernel.mix
    issue, tensor = c.get(counters.ISSUE, 0.0) / 100, c.get(counters.TENSOR, 0.0) / 100
    if tensor > 0.5:
        text = f"the matrix units are busy for {tensor:.0%} of the time"
        yield Hint(Limit.COMPUTE, tensor, text, {"matrix units busy, %": 100 * tensor})
    prefix = "loop " if mix.get("loop instructions") else ""
    arithmetic = sum(mix.get(prefix + kind, 0) for kind in ("float", "special", "matrix"))
    share = arithmetic / max(1, mix.get(f"{prefix}instructions", 0))
    if counters.ISSUE not in c and prefix and share >= 0.5:
        text = f"{share:.0%} of the instructions in its innermost loops are floating-point"
        evidence = {"arithmetic in innermost loops, %": 100 * share}
        yield Hint(Limit.COMPUTE, _LIGHT * s.slack, text, evidence)
    if issue <= 0.6:
        return
    evidence = {
        "cycles with an instruction, %": 100 * issue,
        "arithmetic in it, %": 100 * share,
    }
    limit = Limit.COMPUTE if share >= 0.5 else Limit.INSTRUCTIONS
    text = f"an instruction starts in {issue:.0%} of the cycles; {share:.0%} are floating-point"
    yield Hint(limit, issue, text, evidence)


def _no_matrix(s: Situation, kernel: KernelFacts) -> Iterator[Hint]:
    if "products" not in s.unit or s.compute_us < 0.3 * s.memory_us or not kernel.mix:
        return
    if not kernel.mix.get("matrix") and kernel.mix.get("float", 0) > 8:
        text = "its products do not use the matrix units"
        evidence = {"matrix instructions in the code": 0.0, "share of their rate": s.compute_share}
        yield Hint(Limit.COMPUTE, 0.8 * s.slack, text, evidence)


def _at_work(s: Situation, kernel: KernelFacts) -> float:
    """A half where a small grid is to be mended first, for then the waits change too."""
    return 0.5 if s.gpu and 0 < kernel.grid < s.gpu.multiprocessors else 1.0


def _waits(kernel: KernelFacts, *reasons: str) -> float | None:
    """Share of the warps' time that is spent waiting for these; None: not counted."""
    total = kernel.counters.get(counters.WAIT, 0.0)
    if total <= 0:
        return None
    spent = sum(kernel.counters.get(counters.STALLS[reason], 0.0) for reason in reasons)
    return min(1.0, spent / total)


_RULES: tuple[Rule, ...] = (
    _more_bytes, _grid, _resident, _spills, _sectors, _narrow, _conflicts, _barriers,
    _memory_waits, _issue, _no_matrix,
)  # fmt: skip
