"""How the process that runs an artifact is started: builders say, workers do."""

from dataclasses import dataclass, field
from pathlib import Path

from kernelwright.model.mapping import FrozenMap


@dataclass(frozen=True, slots=True)
class Host:
    """A program that obeys the worker protocol (`worker/host.hpp`)."""

    command: tuple[str, ...]
    """Program and first arguments; those of the protocol are appended."""
    clock: Path
    """The library with which the judge takes its clock around a call (`worker/clock.cpp`)."""
    visible: tuple[Path, ...] = ()
    """Files and folders that it reads beside its program, the libraries of that, and the
    artifact."""
    hidden: tuple[Path, ...] = ()
    """Folders inside visible ones that must look empty, but for what is visible inside them."""
    environment: FrozenMap[str, str] = field(default_factory=FrozenMap[str, str])
    """Beside what every timed process has."""
    server: tuple[str, ...] = ()
    """The first words of `command`, where with a socket's number instead of the others they start
    a fork server: it forks a host for each connection that is sent to it, with all loaded that is
    slow to load."""
    devices: tuple[Path, ...] = ()
    """Device files that it opens, such as a GPU's; none: it computes on the processor."""
    rehearses: bool = False
    """Whether it compiles when it is first called on a shape, and can be told to do so before: on
    tensors without memory, while nothing is timed and no inputs are in place."""
