"""Clocks, power, temperature and throttling of the first GPU, by NVIDIA's management library.

Through `nvidia-ml-py`, an optional dependency (`pip install kernelwright[nvidia]`). Nothing is set.
"""

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from statistics import median
from typing import Any

from kernelwright.cuda_driver import pci_address
from kernelwright.model import FrozenMap, Telemetry

REASONS = {
    0x4: "power limit",
    0x8: "hardware slowdown",
    0x20: "heat",
    0x40: "heat, by the hardware",
    0x80: "power brake",
}
"""Bits of `nvmlClocksEventReasons` that make a GPU slower than it could be. Others are not
throttling: idle, clocks that somebody set, sync boost, display clocks."""


class Reader:
    """Reads the state of the GPU; `readings` grows by one with each `read`.

    Args:
        nvml: the module `pynvml`.
        device: its handle of the GPU.
    """

    def __init__(self, nvml: Any, device: Any) -> None:
        self._nvml, self._device = nvml, device
        self._readings: list[tuple[float, float, float, float, int]] = []

    def read(self) -> None:
        """Take down one reading; one that the driver refuses is left out."""
        nvml, device = self._nvml, self._device
        try:
            self._readings.append(
                (
                    nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_SM),
                    nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_MEM),
                    nvml.nvmlDeviceGetPowerUsage(device) / 1000,
                    nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU),
                    _reasons(nvml)(device),
                )
            )
        except nvml.NVMLError:
            return

    def summary(self) -> Telemetry | None:
        """All readings in one record; None where there are none."""
        if not self._readings:
            return None
        clocks, memory, power, heat, reasons = zip(*self._readings, strict=True)
        count = len(self._readings)
        shares = {
            name: sum(bool(value & bit) for value in reasons) / count
            for bit, name in REASONS.items()
        }
        nvml = self._nvml
        return Telemetry(
            readings=count,
            clock_mhz=float(median(clocks)),
            lowest_clock_mhz=float(min(clocks)),
            most_clock_mhz=float(nvml.nvmlDeviceGetMaxClockInfo(self._device, nvml.NVML_CLOCK_SM)),
            memory_clock_mhz=float(median(memory)),
            power_w=float(median(power)),
            temperature_c=float(max(heat)),
            throttling=FrozenMap({name: share for name, share in shares.items() if share}),
        )


def reader() -> Reader | None:
    """A reader of the GPU that kernels run on; None where it cannot be asked."""
    found = _device()
    return None if isinstance(found, str) else Reader(*found)


def missing() -> str | None:
    """Why the GPU cannot be asked; None: it can."""
    found = _device()
    return found if isinstance(found, str) else None


def _reasons(nvml: Any) -> Callable[[Any], int]:
    """The function under its name of now, or of before driver 535."""
    new = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
    return new or nvml.nvmlDeviceGetCurrentClocksThrottleReasons


@lru_cache(maxsize=1)
def _device() -> tuple[Any, Any] | str:
    address = pci_address()
    if address is None:
        return "no NVIDIA GPU"
    try:
        nvml: Any = import_module("pynvml")
    except ImportError:
        return "nvidia-ml-py is not installed (pip install kernelwright[nvidia])"
    try:
        nvml.nvmlInit()
        return nvml, nvml.nvmlDeviceGetHandleByPciBusId(address)
    except nvml.NVMLError as error:
        return f"NVIDIA's management library cannot be used: {error}"
