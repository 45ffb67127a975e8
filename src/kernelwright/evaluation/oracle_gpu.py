"""The oracle's way to a GPU: references computed there, baselines timed there by events."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

import torch

from kernelwright.errors import ProblemError

_HEAD_START = 1 << 20
"""Clock cycles, about half a millisecond: for a process that was woken a moment ago."""
_LONGEST_HEAD_START = 1 << 26


class Gpu:
    """The first GPU, as torch has it.

    Raises:
        ProblemError: torch cannot use it.
    """

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise ProblemError(
                "torch cannot use the GPU, so there is nothing to compare with: install a build "
                f"of torch for CUDA (this is {torch.__version__})"
            )
        self.device = torch.device("cuda")
        self._head_start = _HEAD_START
        self.flush_bytes = 0
        """Read right before the next call that is timed."""
        self._flushed = torch.zeros(0, device=self.device)
        self._read = torch.zeros((), device=self.device)
        self._started = torch.cuda.Event(enable_timing=True)
        self._stopped = torch.cuda.Event(enable_timing=True)

    @contextmanager
    def computing(self) -> Generator[None]:
        """References run here: on the GPU, without the narrow formats that torch takes for f32."""
        with self.device, torch.backends.cudnn.flags(allow_tf32=False):
            yield

    def lend(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Copies on the GPU."""
        return {name: tensor.to(self.device) for name, tensor in tensors.items()}

    def timed_ns(self, call: Callable[[], None]) -> float:
        """Nanoseconds of a call between two events, after a wait and a flush.

        As `worker/cuda_host.cu` does: what keeps the GPU busy before the call hides the time in
        which the processor enqueues it. Where that was too short, so that the GPU ran dry, the
        call is made again after a longer one. A call that waits for the GPU itself always runs
        dry: its gaps are its own.
        """
        if self._flushed.numel() * 4 != self.flush_bytes:
            self._flushed = torch.ones(self.flush_bytes // 4, device=self.device)
        while True:
            torch.cuda.synchronize()
            torch.cuda._sleep(self._head_start)  # pyright: ignore
            if self.flush_bytes:
                torch.sum(self._flushed, dim=0, out=self._read)
            self._started.record()
            call()
            self._stopped.record()
            dry = self._started.query()
            torch.cuda.synchronize()
            if not dry or self._head_start >= _LONGEST_HEAD_START:
                return 1e6 * self._started.elapsed_time(self._stopped)
            self._head_start *= 2
