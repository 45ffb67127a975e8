"""The arenas of a pool: how large they are, and where everything lies in them."""

from collections.abc import Sequence

from kernelwright.evaluation.device_pool import DevicePool, Seen
from kernelwright.evaluation.layout import POISON, Place, pack, pack_before_guards, page_up
from kernelwright.evaluation.oracle_client import OracleClient
from kernelwright.evaluation.pool import MakeArena, Pool, Secret
from kernelwright.execution import Arena
from kernelwright.model import Dtype, Signature, Workload


def make_pool(
    label: str,
    signature: Signature,
    workloads: Sequence[Workload],
    slots: int,
    shared: bool,
    oracle: OracleClient,
    arena: MakeArena = Arena,
) -> Pool:
    """Arenas for the cases, attached to the oracle; `fill` makes the values.

    Args:
        label: prefix of the arenas' names, unique.
        signature: of the problem.
        workloads: one per case.
        slots: output slots; input slots too when `shared`, else one input slot per case.
        shared: all cases are of one workload.
        oracle: who fills them.
        arena: makes the memory that workers are lent.
    """
    secrets, secret_bytes = _secrets(signature, workloads)
    input_slots: list[tuple[Place, ...]] = []
    guards: list[int] = []
    end = 0
    for number in range(slots if shared else len(workloads)):
        w = workloads[0] if shared else workloads[number]
        if shared:  # timed: large pages stay whole
            places, end = pack(signature.inputs, w.sizes, w.dtype, end, 1 + number % 8)
        else:
            places, end = pack_before_guards(signature.inputs, w.sizes, w.dtype, end)
            guards += [page_up(place.offset + max(place.nbytes, 1)) for place in places]
        input_slots.append(places)
    starts, output_bytes = _output_starts(signature, workloads, slots)
    output_slots = tuple(
        tuple(
            pack(signature.outputs, w.sizes, w.dtype, start, 2 + k % 7)[0]
            for k, start in enumerate(starts)
        )
        for w in workloads
    )
    inputs = arena(f"{label}-inputs", end, not guards)
    inputs.guards = tuple(guards)
    outputs = arena(f"{label}-outputs", output_bytes, True)
    inputs.fill(0, inputs.nbytes, POISON)
    inputs.seal()
    parts = (tuple(secrets), tuple(input_slots), output_slots)
    if inputs.mirrored:
        seen, secret_bytes = _seen(signature, workloads, secret_bytes)
        secret = arena(f"{label}-secret", secret_bytes, True)
        oracle.attach([secret])
        return DevicePool(
            label, signature, tuple(workloads), shared, secret, inputs, outputs, *parts,
            oracle=oracle, seen=seen,
        )  # fmt: skip
    secret = Arena(f"{label}-secret", secret_bytes)
    oracle.attach([secret, inputs, outputs])
    return Pool(label, signature, tuple(workloads), shared, secret, inputs, outputs, *parts)


def _seen(
    signature: Signature, workloads: Sequence[Workload], start: int
) -> tuple[tuple[Seen, ...], int]:
    """Room for copies of what a call saw and left, and the end of it."""
    found: list[Seen] = []
    last = start
    for w in workloads:
        inputs, end = pack(signature.inputs, w.sizes, w.dtype, start)
        outputs, end = pack(signature.outputs, w.sizes, w.dtype, end)
        found.append(Seen(inputs, outputs))
        last = max(last, end)
    return tuple(found), last


def bytes_per_set(signature: Signature, workload: Workload, bands: bool = True) -> int:
    """What one more secret set costs.

    Args:
        signature: of the problem.
        workload: of the pool.
        bands: the judge makes bands of its own beside expected values and tolerances.
    """
    secrets, nbytes = _secrets(signature, [workload])
    return nbytes + (sum(2 * place.nbytes for place in secrets[0].tolerances) if bands else 0)


def _secrets(signature: Signature, workloads: Sequence[Workload]) -> tuple[list[Secret], int]:
    end = 0
    secrets: list[Secret] = []
    for w in workloads:
        inputs, end = pack(signature.inputs, w.sizes, w.dtype, end)
        values: list[list[Place]] = [[], []]
        for tensor in signature.outputs:
            dtype, shape = tensor.resolve(w.dtype), tensor.shape(w.sizes)
            kinds = (
                Dtype.F64 if dtype.is_float else Dtype.I64,
                Dtype.F64 if dtype is Dtype.F64 else Dtype.F32,
            )
            for group, kind in zip(values, kinds, strict=True):
                nbytes = tensor.elements(w.sizes) * kind.itemsize
                group.append(Place(tensor.name, kind, shape, end, nbytes))
                end += -(-nbytes // 64) * 64
        end = page_up(end)
        secrets.append(Secret(inputs, tuple(values[0]), tuple(values[1])))
    return secrets, end


def _output_starts(
    signature: Signature, workloads: Sequence[Workload], slots: int
) -> tuple[list[int], int]:
    """Where output slots begin (cases share them), and the size of all."""
    size = max(pack(signature.outputs, w.sizes, w.dtype, 0, 8)[1] for w in workloads)
    return [k * size for k in range(slots)], slots * size
