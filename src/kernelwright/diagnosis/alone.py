"""One CUDA kernel alone in a process with memory of its own, under a tool or by itself.

Nobody times or judges here: `worker/solo.cu` makes one call for a sanitizer or a profiler, or tells
which launches a call makes. It is confined as compilers are, and sees the GPU.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernelwright.diagnosis.tools import places_of
from kernelwright.model import Host
from kernelwright.sandbox import View, real_paths, run_confined

_MARK = "KERNELWRIGHT "
_ADDRESS_SPACE = 1 << 46
"""A CUDA context reserves more addresses than there is memory."""
_OWN_FAILURE = 3


@dataclass(frozen=True, slots=True)
class Given:
    """An input tensor."""

    data: NDArray[np.uint8]
    static: bool = False


@dataclass(frozen=True, slots=True)
class Space:
    """An output tensor."""

    nbytes: int


Argument = Given | Space | int | float
"""Tensors, dimensions and scalars; what follows them in the prototype is made there."""


@dataclass(frozen=True, slots=True)
class AloneCall:
    """A built kernel with the arguments of one call."""

    host: Host
    """Of `build.solo_host`."""
    artifact: Path
    entry: str
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class AloneOutcome:
    """How it ended."""

    code: int | None
    """0; 3: our program failed; 4: the kernel did; None: the time ran out; else the tool's."""
    output: str
    log: str
    """What the tool wrote into its log."""
    seconds: float

    @property
    def ours(self) -> bool:
        """Whether the failure, if there is one, says nothing about the kernel."""
        return self.code == _OWN_FAILURE


def run_alone(
    call: AloneCall,
    tool: Sequence[str] = (),
    log_option: str = "--log-file",
    seconds: float | None = None,
    timeout_s: float = 60.0,
) -> AloneOutcome:
    """Make one call, or tell its launches.

    Args:
        call: what is called.
        tool: a tool's path and options, without those of its log; empty: none.
        log_option: how the tool is told of its log file.
        seconds: None: one call; else the launches of a call are told, and its energy over this
            long (0: not at all).
        timeout_s: longest.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, writable = Path(name) / "inputs", Path(name) / "log"
        folder.mkdir()
        writable.mkdir()
        log = writable / "log.txt"
        command = [*tool, *([log_option, str(log)] if tool else [])]
        mode = ["once", "0"] if seconds is None else ["profile", str(seconds)]
        command += [*call.host.command, *mode, str(call.artifact), call.entry]
        command += [_word(folder, place, value) for place, value in enumerate(call.arguments)]
        view = View(
            read_only=real_paths(
                [call.artifact, *call.host.command, *call.host.visible, folder,
                 *places_of(tool[0] if tool else call.host.command[0])]
            ),
            writable=(writable,),
            devices=call.host.devices,
            system=True,
            folder=writable,
        )  # fmt: skip
        environment = {"HOME": "/tmp", **call.host.environment}
        done = run_confined(command, view, timeout_s, _ADDRESS_SPACE, environment)
        said = log.read_text(errors="replace") if log.is_file() else ""
        return AloneOutcome(done.code, done.output, said, done.seconds)


def told(outcome: AloneOutcome) -> dict[str, Any] | None:
    """The document that our program printed; None where it did not get there."""
    lines = [line for line in outcome.output.splitlines() if line.startswith(_MARK)]
    if outcome.code != 0 or not lines:
        return None
    try:
        return json.loads(lines[-1].removeprefix(_MARK))
    except ValueError:
        return None


def _word(folder: Path, place: int, value: Argument) -> str:
    if isinstance(value, Given):
        path = folder / str(place)
        value.data.tofile(path)
        return f"{'static' if value.static else 'in'}:{path}:{value.data.nbytes}"
    if isinstance(value, Space):
        return f"out:{value.nbytes}"
    return f"d:{value!r}" if isinstance(value, float) else f"i:{int(value)}"
