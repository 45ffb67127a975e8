"""What the kernel says about this machine: CPU, caches, memory, instruction sets."""

import ctypes
import os
import platform
import re
from functools import lru_cache
from importlib import metadata
from pathlib import Path

_ISA = re.compile(
    r"(sse|ssse|avx|amx|fma|f16c|bmi|popcnt|abm|asimd|sve|fphp|bf16|i8mm|clflushopt|clwb)\w*"
)
_NOISE = re.compile(r"\((r|tm)\)|\b(cpu|processor|intel|amd|with|core)\b|@.*|\d+-core", re.I)


@lru_cache(maxsize=1)
def cpu_info() -> dict[str, str]:
    """The first processor's entry in /proc/cpuinfo."""
    entry: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, colon, value = line.partition(":")
        if not colon and entry:
            break
        entry[name.strip()] = value.strip()
    return entry


def cpu_name() -> str:
    """The model's name, or the architecture where the kernel does not tell."""
    return cpu_info().get("model name") or platform.machine()


def isa_flags() -> tuple[str, ...]:
    """Flags of vector and bit instructions, sorted; the matrix unit only where it is lent."""
    words = (cpu_info().get("flags") or cpu_info().get("Features") or "").split()
    found = {word for word in words if _ISA.fullmatch(word)}
    if any(word.startswith("amx") for word in found) and not ask_for_matrix_unit():
        found = {word for word in found if not word.startswith("amx")}
    return tuple(sorted(found))


def ask_for_matrix_unit() -> bool:
    """Ask Linux to lend this process the matrix unit (AMX), which it must before any use.

    Source: the kernel's documentation, "Using XSTATE features in user space applications".
    """
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        return False
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    return ctypes.CDLL(None).syscall(arch_prctl, request_permission, tile_data) == 0


def vector_bits(isa: tuple[str, ...]) -> int:
    """Widest vector unit among 128, 256 and 512."""
    return 512 if "avx512f" in isa else 256 if "avx2" in isa or "avx" in isa else 128


def usable_cores() -> int:
    """Cores of this process's affinity, at most the quota of its control group."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()[:2]
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _size(text: str) -> int:
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    match = re.fullmatch(r"(\d+)([KMG]?)", text)
    return int(match[1]) * units.get(match[2], 1) if match else 0


def cache_bytes() -> tuple[int, int, int]:
    """L1 data and L2 of one core, and the whole last level over the cores of the affinity.

    Where there is no third level the last level is the sum of the second; 32 KiB, 1 MiB and
    32 MiB where the kernel tells nothing.
    """
    first = second = 0
    last: dict[tuple[int, str], int] = {}
    for core in sorted(os.sched_getaffinity(0)):
        for index in sorted(Path(f"/sys/devices/system/cpu/cpu{core}/cache").glob("index*")):
            level, kind = _read(index / "level"), _read(index / "type")
            size = _size(_read(index / "size"))
            if kind == "Instruction" or not level.isdigit():
                continue
            if level == "1":
                first = first or size
            elif level == "2":
                second = second or size
            if int(level) >= 2:
                last[int(level), _read(index / "shared_cpu_list")] = size
    deepest = max((level for level, _ in last), default=0)
    total = sum(size for (level, _), size in last.items() if level == deepest)
    return first or 32 << 10, second or 1 << 20, total or 32 << 20


def memory_bytes() -> int:
    """Physical memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def os_name() -> str:
    """Distribution and kernel release."""
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        name = "Linux"
    return f"{name}, kernel {platform.release()}"


def machine_name(cores: int) -> str:
    """Short and file-name safe, such as `xeon-8259cl-2c`; a model number where none is named."""
    words = re.findall(r"[a-z0-9.]+", _NOISE.sub(" ", cpu_name()).lower())
    if not any(re.search(r"\d", word) for word in words) and cpu_info().get("model"):
        words.append(f"m{cpu_info()['model']}")
    return "-".join([*words, f"{cores}c"])[:60]


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in ("kernelwright", "torch", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
