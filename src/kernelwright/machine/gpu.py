"""An NVIDIA GPU as a machine: what its driver says, and what a native probe of ours measures."""

import json
import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from kernelwright.build import find_toolkit
from kernelwright.build.cache import read_json, user_cache_folder, write_json
from kernelwright.build.compilers import diagnostics
from kernelwright.build.nvcc import Toolkit, for_architecture
from kernelwright.cuda_driver import first_gpu, missing_gpu
from kernelwright.errors import HarnessError
from kernelwright.model import Gpu, content_hash

SOURCE = Path(__file__).parent / "gpu_rates.cu"
_RATES = ("read_gbs", "write_gbs", "copy_gbs", "fma_gflops", "bf16_gflops", "launch_us")
_SECONDS = 60


def probe_gpu(refresh: bool = False) -> tuple[Gpu | None, dict[str, str]]:
    """The first GPU with measured rates, and what is missing for CUDA, with the reason.

    Args:
        refresh: Measure the rates again instead of taking those of an earlier run.

    Raises:
        HarnessError: our own probe does not compile, or fails.
    """
    gpu, toolkit = first_gpu(), find_toolkit()
    missing: dict[str, str] = {}
    if toolkit is None:
        missing["nvcc"] = "no CUDA toolkit was found on the PATH, in CUDA_HOME or /usr/local/cuda"
    if gpu is None:
        missing["gpu"] = missing_gpu() or "no NVIDIA GPU"
        return None, missing
    if toolkit is None:
        return gpu, missing
    refused = toolkit.refuses(gpu.architecture)
    if refused:
        return gpu, {"nvcc": refused}
    return replace(gpu, **_rates(gpu, toolkit, refresh)), missing


def _rates(gpu: Gpu, toolkit: Toolkit, refresh: bool) -> dict[str, float]:
    """Measured rates, remembered per GPU, driver and toolkit."""
    text = SOURCE.read_text()
    facts = (gpu.name, gpu.driver, str(gpu.memory_bytes), toolkit.nvcc, toolkit.version)
    path = user_cache_folder() / f"gpu-rates-{content_hash(*facts, text)[:16]}.json"
    rates = None if refresh else read_json(path)
    if not isinstance(rates, dict) or set(rates) != set(_RATES):
        rates = _measure(gpu, toolkit)
        write_json(path, rates)
    return rates


def _measure(gpu: Gpu, toolkit: Toolkit) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=user_cache_folder()) as name:
        scratch = Path(name)
        (scratch / SOURCE.name).write_text(SOURCE.read_text())
        flags = ["-std=c++17", "-O3", for_architecture(gpu.architecture)]
        outcome = toolkit.run(scratch, [*flags, SOURCE.name, "-o", "probe"], 120)
        if outcome.code != 0:
            raise HarnessError(f"{SOURCE.name} does not compile: {diagnostics(outcome, scratch)}")
        try:
            done = subprocess.run(
                [scratch / "probe"], capture_output=True, text=True, timeout=_SECONDS, check=True,
                env={**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
            )  # fmt: skip
            found = json.loads(done.stdout)
            return {name: float(found[name]) for name in _RATES}
        except (subprocess.SubprocessError, ValueError, KeyError) as error:
            said = getattr(error, "stderr", "") or str(error)
            raise HarnessError(f"the GPU's rates cannot be measured: {said}") from error
