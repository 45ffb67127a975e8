"""What models are told about a problem: plain text and numbers, nothing that is kept secret."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from kernelwright.expr import pretty, skeleton
from kernelwright.model import Bound, Dtype, Machine, PublicProblem, Signature, Target
from kernelwright.propose import ProblemView


@dataclass(frozen=True, slots=True)
class Brief:
    """Everything that prompts say of the task; made once, archived, the same in a replay."""

    problem: str
    summary: str
    reference: str
    """Source text of the reference: somebody else's text."""
    expression: str
    """Index notation; empty where the reference is outside of the expression form."""
    skeleton: str
    language: str
    target: str
    entry: str
    prototype: str
    optional: tuple[str, ...]
    """Prototypes of what a kernel may export beside its entry."""
    dtype: str
    sizes: dict[str, int]
    ranges: dict[str, tuple[int, int]]
    distributions: tuple[str, ...]
    contract: str
    machine: tuple[str, ...]
    """Facts, one line each."""
    compilers: tuple[str, ...]
    tensors: tuple[str, ...] = ()
    """Inputs and outputs with their shapes, one line each."""
    bound: str = ""
    """The least time at the measured rates, and what makes it; empty where it is not known."""
    baseline_us: dict[str, float] = field(default_factory=dict[str, float])
    shelf: dict[str, str] = field(default_factory=dict[str, str])
    """Sources that the librarian may fetch, by name."""

    @classmethod
    def of(
        cls,
        public: PublicProblem,
        view: ProblemView,
        baseline_us: Mapping[str, float],
        shelf: Mapping[str, str],
        bound: Bound | None = None,
    ) -> "Brief":
        """From what is public about a problem, and the view that proposers get."""
        language = "cuda" if view.target == "cuda" else "cpp"
        signature, dtype = view.signature, view.dtype
        return cls(
            problem=public.name,
            summary=public.summary,
            reference=public.reference_text,
            expression=pretty(view.program) if view.program else "",
            skeleton=skeleton(view.program) if view.program else "none",
            language=language,
            target=view.target,
            entry=view.entry,
            prototype=f'extern "C" {signature.prototype(view.entry, dtype)}',
            optional=tuple(
                f'extern "C" {text}'
                for text in (
                    signature.workspace_prototype(view.entry),
                    *signature.prepare_prototypes(view.entry, dtype),
                )
            ),
            dtype=str(dtype),
            sizes=dict(view.sizes),
            ranges=dict(public.ranges),
            distributions=public.distributions,
            contract=public.contract,
            machine=machine_facts(view.machine, view.target),
            compilers=_compilers(view.machine, view.target),
            tensors=_tensors(signature, dtype),
            bound=_bound(bound) if bound else "",
            baseline_us={name: round(us, 3) for name, us in baseline_us.items()},
            shelf=dict(shelf),
        )

    @property
    def best_baseline(self) -> tuple[str, float] | None:
        """The fastest, and its microseconds."""
        return min(self.baseline_us.items(), key=lambda item: item[1], default=None)

    def to_json(self) -> dict[str, Any]:
        """As plain data; `from_json` gives back an equal record."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Brief":
        """What `to_json` gave, also after a way through JSON."""
        tuples = ("optional", "distributions", "machine", "compilers", "tensors")
        ranges = {name: (pair[0], pair[1]) for name, pair in data["ranges"].items()}
        fields: dict[str, Any] = {**data}
        fields |= {name: tuple(data.get(name, ())) for name in tuples}
        fields["ranges"] = ranges
        return cls(**fields)


def machine_facts(machine: Machine, target: Target) -> tuple[str, ...]:
    """What a kernel's author must know of a machine; measured rates, no names of hosts."""
    gpu = machine.gpu
    if target == "cuda" and gpu is not None:
        return (
            f"{gpu.name}, {gpu.architecture}, {gpu.multiprocessors} multiprocessors",
            f"L2 {gpu.l2_bytes >> 20} MiB, shared memory up to {gpu.shared_bytes >> 10} KiB a "
            f"block, {gpu.registers} registers and {gpu.threads} threads a multiprocessor",
            f"memory: read {gpu.read_gbs:.0f}, copy {gpu.copy_gbs:.0f} GB/s (measured)",
            f"fp32 multiply-add {gpu.fma_gflops / 1000:.1f} TFLOP/s, bf16 tensor cores "
            f"{gpu.bf16_gflops / 1000:.0f} TFLOP/s (measured)",
            f"a launch takes {gpu.launch_us:.1f} us",
        )
    wanted = ("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_bf16", "avx512_vnni",
              "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8")  # fmt: skip
    present = [name for name in wanted if name in machine.isa]
    return (
        f"{machine.cpu}, {machine.cores} cores, one OpenMP thread on each",
        f"vectors of {machine.vector_bits} bits ({' '.join(present)})",
        f"caches: L1 {machine.l1_bytes >> 10} KiB and L2 {machine.l2_bytes >> 10} KiB a core, "
        f"L3 {machine.l3_bytes >> 20} MiB",
        f"memory: read {machine.read_gbs:.0f}, streaming copy {machine.copy_gbs:.0f}, triad "
        f"{machine.triad_gbs:.0f} GB/s (measured, all cores)",
        f"fp32 multiply-add {machine.fma_gflops:.0f} GFLOP/s (measured, all cores)",
    )


def _tensors(signature: Signature, dtype: Dtype) -> tuple[str, ...]:
    def line(kind: str, place: int) -> str:
        tensor = (signature.inputs if kind == "input" else signature.outputs)[place]
        weight = ", static: a weight" if tensor.static else ""
        return f"{kind} {tensor.name}: {tensor.resolve(dtype)}[{', '.join(tensor.dims)}]{weight}"

    inputs = [line("input", place) for place in range(len(signature.inputs))]
    return (*inputs, *(line("output", place) for place in range(len(signature.outputs))))


def _bound(bound: Bound) -> str:
    return (
        f"{bound.median_us:.4g} us, by {bound.limiter}: {bound.bytes_moved / 1e6:.4g} MB must move "
        f"and {bound.operations / 1e6:.4g} million operations be done, at the rates measured here"
    )


def _compilers(machine: Machine, target: Target) -> tuple[str, ...]:
    if target == "cuda":
        return ("nvcc",)
    return tuple(toolchain.name for toolchain in machine.toolchains)
