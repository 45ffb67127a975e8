"""What `ptxas -v` says about each kernel: registers, spills, shared memory."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_ENTRY = re.compile(r"ptxas info\s*: Compiling entry function '([^']+)' for '([^']+)'")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"ptxas info\s*: Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")
_CONSTANT = re.compile(r"(\d+) bytes cmem\[\d+\]")
_INFORMATION = re.compile(r"^(ptxas info\s*:.*|\s+\d+ bytes stack frame, .*)(?:\n|$)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class KernelResources:
    """What one `__global__` function of an artifact takes."""

    name: str
    """As the assembler calls it (mangled)."""
    architecture: str
    registers: int
    """Per thread."""
    spill_store_bytes: int
    spill_load_bytes: int
    stack_bytes: int
    """Local memory per thread, spills included."""
    shared_bytes: int
    """Static shared memory per block."""
    constant_bytes: int

    def __str__(self) -> str:
        """For people: `65 registers, no spills, 4096 bytes of shared memory`."""
        spilled = self.spill_store_bytes + self.spill_load_bytes
        spills = f"{spilled} bytes spilled" if spilled else "no spills"
        return f"{self.registers} registers, {spills}, {self.shared_bytes} bytes of shared memory"


def parse_resources(log: str) -> tuple[KernelResources, ...]:
    """The resources of every kernel that a log of the assembler tells of, in its order."""
    return tuple(_resources(log))


def without_resources(log: str) -> str:
    """What else a log says: warnings."""
    return _INFORMATION.sub("", log).strip()


def _resources(log: str) -> Iterator[KernelResources]:
    entries = list(_ENTRY.finditer(log))
    ends = [*(match.start() for match in entries[1:]), len(log)]
    for entry, end in zip(entries, ends, strict=False):
        text = log[entry.end() : end]
        used, stack = _USED.search(text), _STACK.search(text)
        if used is None:
            continue
        line = text[used.start() :].partition("\n")[0]
        frame, stores, loads = map(int, stack.groups()) if stack else (0, 0, 0)
        yield KernelResources(
            name=entry[1],
            architecture=entry[2],
            registers=int(used[1]),
            spill_store_bytes=stores,
            spill_load_bytes=loads,
            stack_bytes=frame,
            shared_bytes=sum(map(int, _SHARED.findall(line))),
            constant_bytes=sum(map(int, _CONSTANT.findall(line))),
        )
