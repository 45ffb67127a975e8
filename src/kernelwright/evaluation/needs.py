"""What memory a kernel asks for beside its tensors."""

from dataclasses import dataclass, field

from kernelwright.evaluation.arguments import scalar_words
from kernelwright.evaluation.expected import Fault, describe
from kernelwright.evaluation.prepared import most_bytes
from kernelwright.execution import Failure, Worker
from kernelwright.model import Reason, Signature, Workload


@dataclass(slots=True)
class Needs:
    """Bytes by workload, asked for once."""

    workspace: dict[Workload, int] = field(default_factory=dict[Workload, int])
    prepared: dict[Workload, int] = field(default_factory=dict[Workload, int])
    """0 where nothing is to be prepared."""

    def learn(
        self, worker: Worker, signature: Signature, workload: Workload, memory_bytes: int
    ) -> Fault | None:
        """Ask the kernel, unless the workload is known.

        Args:
            worker: runs the kernel.
            signature: of the problem.
            workload: what it is to be called on.
            memory_bytes: the most that it may have.

        Returns:
            What was wrong with its answer.
        """
        if not worker.exports_prepare:
            self.prepared[workload] = 0
        most = most_bytes(signature, workload, memory_bytes)
        for known, ask, what, limit in (
            (self.workspace, worker.workspace_bytes, "of workspace", memory_bytes),
            (self.prepared, worker.prepared_bytes, "to prepare", most),
        ):
            if workload in known:
                continue
            nbytes = ask(*scalar_words(signature, workload))
            where = f"on {describe(workload)}"
            if isinstance(nbytes, Failure):
                return Fault(nbytes.reason, f"{nbytes.detail}; asking for bytes {what}; {where}")
            if not 0 <= nbytes <= limit:
                text = f"it asks for {nbytes} bytes {what} and gets {limit} at most; {where}"
                return Fault(Reason.OUT_OF_MEMORY, text)
            known[workload] = nbytes
        return None
