"""NVIDIA's driver library, called directly: what GPUs are here, and memory on them.

Nothing is linked against it and nothing breaks where it is missing. Source of names and numbers:
the CUDA driver API reference, `cuda.h`.
"""

import ctypes
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from kernelwright.errors import HarnessError
from kernelwright.model import Gpu

_PLACES = ("libcuda.so.1", "/usr/local/nvidia/lib64/libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1")
_OWN_INSTRUCTIONS = {90, 100, 101, 103, 110, 120, 121}
"""Compute capabilities that have an architecture with an `a`: instructions of this chip alone."""
_FP32_LANES = {(7, 0): 64, (7, 5): 64, (8, 0): 64}
_MORE_FP32_LANES = 128
_CLOCK, _SHARED, _REGISTERS, _THREADS = 13, 97, 82, 39
_MULTIPROCESSORS, _MEMORY_CLOCK, _BUS, _L2, _MAJOR, _MINOR = 16, 36, 37, 38, 75, 76


class DriverError(HarnessError):
    """A call of the driver failed; `code` is its number."""

    def __init__(self, function: str, code: int, words: str) -> None:
        super().__init__(f"the NVIDIA driver refused {function}: {words} ({code})")
        self.code = code


class Driver:
    """The driver library, initialised; `call` checks every answer.

    Raises:
        DriverError: it cannot be initialised, for one because there is no GPU.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.call("cuInit", 0)

    def call(self, function: str, *arguments: Any) -> None:
        """One function of the driver.

        Raises:
            DriverError: it answered with an error.
        """
        code = getattr(self.library, function)(*arguments)
        if code:
            raise DriverError(function, code, self._words(code))

    def _words(self, code: int) -> str:
        text = ctypes.c_char_p()
        self.library.cuGetErrorString(code, ctypes.byref(text))
        return (text.value or b"unknown error").decode()

    def devices(self) -> int:
        """How many GPUs this process may use."""
        return self._number("cuDeviceGetCount")

    def attribute(self, device: int, attribute: int) -> int:
        """One number that the driver knows about a GPU."""
        return self._number("cuDeviceGetAttribute", attribute, device)

    def _number(self, function: str, *arguments: Any) -> int:
        value = ctypes.c_int()
        self.call(function, ctypes.byref(value), *arguments)
        return value.value

    def describe(self, device: int) -> Gpu:
        """What the driver says about a GPU; nothing is measured."""
        handle = self._number("cuDeviceGet", device)
        name = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", name, 256, handle)
        memory = ctypes.c_size_t()
        self.call("cuDeviceTotalMem_v2", ctypes.byref(memory), handle)

        def ask(attribute: int) -> int:
            return self.attribute(handle, attribute)

        capability = ask(_MAJOR), ask(_MINOR)
        lanes = _FP32_LANES.get(capability, _MORE_FP32_LANES)
        clock_mhz, memory_clock_mhz = ask(_CLOCK) / 1000, ask(_MEMORY_CLOCK) / 1000
        return Gpu(
            name=name.value.decode(),
            architecture=architecture(*capability),
            multiprocessors=ask(_MULTIPROCESSORS),
            l2_bytes=ask(_L2),
            memory_bytes=memory.value,
            shared_bytes=ask(_SHARED),
            registers=ask(_REGISTERS),
            threads=ask(_THREADS),
            clock_mhz=clock_mhz,
            memory_clock_mhz=memory_clock_mhz,
            bus_bits=ask(_BUS),
            driver=_driver_version(),
            peak_gbs=2 * memory_clock_mhz * ask(_BUS) / 8 / 1000,
            peak_fma_gflops=2 * lanes * ask(_MULTIPROCESSORS) * clock_mhz / 1000,
        )


def architecture(major: int, minor: int) -> str:
    """What to compile for: `sm_90a`, or `sm_86` where a chip has no instructions of its own."""
    number = 10 * major + minor
    return f"sm_{number}{'a' if number in _OWN_INSTRUCTIONS else ''}"


def _driver_version() -> str:
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        text = ""
    found = re.search(r"\b(\d+\.\d+(?:\.\d+)?)\b", text)
    return found[1] if found else "unknown"


@lru_cache(maxsize=1)
def _load() -> "Driver | str":
    for place in _PLACES:
        try:
            library = ctypes.CDLL(place)
        except OSError:
            continue
        try:
            driver = Driver(library)
            if driver.devices() > 0:
                return driver
        except (DriverError, AttributeError) as error:
            return f"no NVIDIA GPU can be used: {error}"
        return "no NVIDIA GPU: the driver sees none"
    return "no NVIDIA GPU: its driver (libcuda.so.1) is not installed"


def missing_gpu() -> str | None:
    """None where there is an NVIDIA GPU, else one sentence."""
    found = _load()
    return found if isinstance(found, str) else None


def driver() -> Driver:
    """The driver of this process.

    Raises:
        HarnessError: there is no GPU; see `missing_gpu`.
    """
    found = _load()
    if isinstance(found, str):
        raise HarnessError(found)
    return found


@lru_cache(maxsize=1)
def first_gpu() -> Gpu | None:
    """The GPU that kernels run on, as its driver describes it; None where there is none."""
    return None if missing_gpu() else driver().describe(0)


@lru_cache(maxsize=1)
def pci_address() -> str | None:
    """Of the GPU that kernels run on, such as `0000:65:00.0`; None where there is none."""
    if missing_gpu():
        return None
    text = ctypes.create_string_buffer(32)
    driver().call("cuDeviceGetPCIBusId", text, len(text), 0)
    return text.value.decode()


def library_files() -> Sequence[Path]:
    """The driver's own libraries beside the one that this process has loaded; none without GPU."""
    if missing_gpu():
        return []
    lines = Path("/proc/self/maps").read_text().splitlines()
    paths = {line.split(maxsplit=5)[5] for line in lines if "libcuda.so" in line}
    found: list[Path] = []
    for path in sorted(paths):
        folder = Path(path).parent
        found += sorted(folder.glob("libcuda.so*")) + sorted(folder.glob("libnvidia-*.so*"))
    return found


def device_files() -> Sequence[Path]:
    """Device files through which the driver reaches the GPUs."""
    return sorted(Path("/dev").glob("nvidia*"))
