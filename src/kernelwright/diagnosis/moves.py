"""What usually helps against each limit, most promising first."""

from kernelwright.model import Limit, Target

_BOTH: dict[Limit, tuple[str, ...]] = {
    Limit.MEMORY: (
        "fuse it with what comes before or after, so that intermediates never reach memory",
        "read each input once: keep rows or tiles in registers or in the nearest cache",
        "store in fewer bits where the contract allows it",
        "stop here: what the machine's memory gives is nearly used up",
    ),
}
_GPU: dict[Limit, tuple[str, ...]] = {
    Limit.COMPUTE: (
        "use matrix instructions (wgmma, mma) where the contract allows their products",
        "take cheaper operations: fused multiply-adds, approximate inverses, strength reduction",
        "compute shared subexpressions once for a tile",
    ),
    Limit.INSTRUCTIONS: (
        "hoist index arithmetic out of loops; use 32-bit offsets; step pointers",
        "work on words of 16 bytes and on pairs of halves, so that one instruction does more",
        "unroll, so that loop control is shared by more work",
    ),
    Limit.LATENCY: (
        "issue several independent loads before the first use: unroll, or load the next tile early",
        "copy asynchronously (cp.async, bulk copies) through two or three stages of shared memory",
        "let more warps be resident: fewer registers and less shared memory for each",
        "break chains of dependent operations into several partial ones",
    ),
    Limit.OCCUPANCY: (
        "start more blocks: split long rows, sums of products or keys of a cache over them",
        "bound registers (__launch_bounds__, -maxrregcount) as long as nothing spills",
        "take smaller tiles, or fewer stages, so that shared memory holds more blocks",
        "make the grid a multiple of what is resident, or a persistent one",
    ),
    Limit.LAUNCH: (
        "do it in one launch: let the last block finish, or recompute instead of passing on",
        "a cooperative or persistent kernel with a grid barrier in place of several launches",
        "replay it as a CUDA graph where many such calls follow each other",
    ),
    Limit.SYNCHRONISATION: (
        "let warps work alone: shuffles in place of shared memory and barriers",
        "two buffers of shared memory, so that one barrier a step is enough",
        "more work between barriers; smaller blocks, so that fewer wait for one",
    ),
    Limit.ATOMICS: (
        "sum within the warp or the block first, and add once for each",
        "private copies for each warp or bank, joined at the end",
        "sort or group by target, so that each place has one writer",
    ),
    Limit.BANK_CONFLICTS: (
        "pad the rows of tiles in shared memory by one word (16 bytes for 16-byte words)",
        "swizzle: exclusive-or the column with the row",
        "let lanes walk along rows, and turn tiles by shuffles or ldmatrix.trans",
    ),
    Limit.UNCOALESCED: (
        "let neighbouring lanes touch neighbouring addresses: change who does which element",
        "go through a tile of shared memory where reading and writing order differ",
        "load whole words of 16 bytes that lanes share by shuffles",
        "store the data in the order in which it is read (prepacked weights)",
    ),
    Limit.NARROW: (
        "load and store 16 bytes a thread (float4, uint4), with a path for unaligned ends",
        "several elements a thread, neighbours in a word",
    ),
    Limit.SPILLS: (
        "fewer values at once: smaller tiles a thread, less unrolling",
        "raise the bound on registers (fewer threads in __launch_bounds__, no -maxrregcount)",
        "index arrays by constants alone (unrolled loops), so that they stay in registers",
    ),
}  # fmt: skip
_PROCESSOR: dict[Limit, tuple[str, ...]] = {
    Limit.COMPUTE: (
        "tiles in registers with more multiply-adds for each load",
        "the matrix unit (AMX), or products of bf16 pairs, where the contract allows them",
        "cheaper functions: polynomials with fewer terms, an estimate and a Newton step",
    ),
    Limit.SCALAR: (
        "make the innermost loop run over neighbours in memory, and free of calls and exits",
        "bring vector functions of your own: compilers keep exp and its kin scalar",
        "declare pointers __restrict__, and reductions by #pragma omp simd reduction",
        "full vectors: -mprefer-vector-width=512 where the machine has them",
    ),
    Limit.LATENCY: (
        "several independent accumulators, so that one addition does not wait for another",
        "prefetch what comes next; walk along memory, not across it",
        "balance the threads: static chunks of equal work",
        "fewer parallel regions and barriers: one region around all passes",
    ),
    Limit.UNCOALESCED: (
        "change the order of loops or of the data, so that vectors are loaded, not gathered",
        "turn tiles in registers or in a small buffer",
        "sort indices, so that neighbours share cache lines",
    ),
    Limit.SPILLS: (
        "smaller tiles in registers: fewer accumulators",
        "constants reloaded from memory by broadcasts in place of registers",
    ),
}  # fmt: skip


def moves_against(limit: Limit, target: Target) -> tuple[str, ...]:
    """What usually helps; empty where nothing is known."""
    own = _GPU if target == "cuda" else _PROCESSOR
    return own.get(limit, _BOTH.get(limit, ()))
