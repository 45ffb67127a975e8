"""Triton without its own driver: nothing is written to a file, no other program is run.

Triton's driver has a C compiler build a launcher for each kernel, and `ptxas` assemble it; a worker
may start no program. So kernels are lowered to PTX in this process, by Triton itself; the GPU's
driver assembles them and is called to launch them. The builder uses the same way without a GPU: it
has `ptxas` assemble the kernels that a trial call would launch.

This runs in the candidate's process and imports nothing of ours. Names and numbers: the CUDA driver
API reference; what Triton passes: `triton.runtime.jit.JITFunction.run`, 3.6.
"""

import ctypes
from collections import namedtuple
from collections.abc import Callable, Sequence
from typing import Any

_SHARED_SIZE, _REGISTERS, _MOST_THREADS, _LOCAL, _DYNAMIC_SHARED = 1, 4, 0, 3, 8
_PREFER_SHARED = 1
_INTEGERS = {
    "i1": ctypes.c_int8, "i8": ctypes.c_int8, "i16": ctypes.c_int16, "i32": ctypes.c_int32,
    "i64": ctypes.c_int64, "u1": ctypes.c_uint8, "u8": ctypes.c_uint8, "u16": ctypes.c_uint16,
    "u32": ctypes.c_uint32, "u64": ctypes.c_uint64,
}  # fmt: skip
launches = True
"""Whether launches are made; in a rehearsal they are not."""
_UNKNOWN = "is not known how to be passed to a kernel here: use pointers, numbers and constexpr"


class Target:
    """What Triton asks a driver: the architecture, the stream, and what the device has.

    Args:
        capability: such as 90.
        properties: as of Triton's `get_device_properties`.
        stream: the number of the current stream.
        device: torch's name of it.
    """

    def __init__(
        self, capability: int, properties: dict[str, int], stream: Callable[[], int], device: str
    ) -> None:
        from triton.backends.compiler import GPUTarget  # pyright: ignore[reportMissingImports]

        self._target = GPUTarget("cuda", capability, 32)
        self._properties, self._stream, self._device = properties, stream, device
        self.utils = self

    def get_device_properties(self, _: int = 0) -> dict[str, int]:
        """What kernels' own code asks for, such as the number of multiprocessors."""
        return self._properties

    def get_current_target(self) -> Any:
        """What is compiled for."""
        return self._target

    def get_current_device(self) -> int:
        """The only one."""
        return 0

    def get_current_stream(self, _: int = 0) -> int:
        """Where launches go."""
        return self._stream()

    def get_active_torch_device(self) -> Any:
        """Where tensors are."""
        import torch

        return torch.device(self._device)

    def get_benchmarker(self) -> Any:
        """There is none: `triton.autotune` would measure by itself."""
        raise RuntimeError("nothing is autotuned here: declare the choices as # @tune NAME = 1, 2")


def lower(source: Any, target: Any, options: dict[str, Any] | None) -> tuple[str, dict[str, Any]]:
    """The PTX of one specialised kernel, and what Triton says about it."""
    from triton._C.libtriton import ir  # pyright: ignore[reportMissingImports]
    from triton.compiler.compiler import make_backend  # pyright: ignore[reportMissingImports]

    backend = make_backend(target)
    chosen = backend.parse_options(dict(options or {}, **source.parse_options()))
    said: dict[str, Any] = {"hash": "", "target": target, **chosen.__dict__}
    stages: dict[str, Callable[[Any, dict[str, Any]], Any]] = {}
    backend.add_stages(stages, chosen, source.language)  # pyright: ignore
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    codegen = backend.get_codegen_implementation(chosen)  # pyright: ignore
    modules = backend.get_module_map()
    module = source.make_ir(target, chosen, codegen, modules, context)
    names = list(stages)
    for name in names[names.index(source.ext) : names.index("cubin")]:
        module = stages[name](module, said)
    return str(module), said


class Kernel:
    """What Triton's launches get instead of a `CompiledKernel`: see `JITFunction.run`."""

    def __init__(self, source: Any, ptx: str, said: dict[str, Any]) -> None:
        self.name: str = said["name"]
        self.types = list(source.signature.values())
        self.asm = {"ptx": ptx}
        self.metadata = namedtuple("KernelMetadata", sorted(said))(**said)
        self.packed_metadata = None
        self.function: Any = None

    def launch_metadata(self, *_: Any) -> None:
        """Nothing listens."""

    def run(self, *_: Any) -> None:
        """Launch nothing."""


class Loaded(Kernel):
    """A kernel on the device."""

    def __init__(self, source: Any, ptx: str, said: dict[str, Any]) -> None:
        super().__init__(source, ptx, said)
        if self.metadata.num_ctas != 1:
            raise ValueError("num_ctas other than 1 cannot be launched here")
        self._cuda = _driver()
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(module), ptx.encode())
        self._call("cuModuleGetFunction", ctypes.byref(function), module, self.name.encode())
        self.function = function
        threads = 32 * self.metadata.num_warps
        if threads > self._attribute(_MOST_THREADS):
            raise ValueError(f"{self.name} has too many registers for {threads} threads")
        if self.metadata.shared > 48 << 10:
            self._call("cuFuncSetCacheConfig", function, _PREFER_SHARED)
            size = self.metadata.shared
            self._call("cuFuncSetAttribute", function, _DYNAMIC_SHARED, size)
        name = "Cooperative" if self.metadata.launch_cooperative_grid else ""
        self._launch = getattr(self._cuda, f"cuLaunch{name}Kernel")
        self._tail = () if name else (None,)
        if hasattr(self._cuda, "cuFuncLoad"):  # or it would be loaded when it is first launched
            self._call("cuFuncLoad", function)
        self.n_regs, self.n_spills = self._attribute(_REGISTERS), self._attribute(_LOCAL) // 4

    def run(self, x: int, y: int, z: int, stream: int, *rest: Any) -> None:
        """Launch it; `rest` is five things of Triton's own, and the arguments."""
        if x * y * z <= 0:
            return
        blocks = x * y * z
        values = [*passed(self.types, rest[5:]), self._scratch(blocks), ctypes.c_uint64(0)]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
        threads, shared = 32 * self.metadata.num_warps, self.metadata.shared
        sizes = (x, y, z, threads, 1, 1, shared)
        if not launches:
            return  # everything else is warm now
        code = self._launch(self.function, *sizes, ctypes.c_void_p(stream), pointers, *self._tail)
        self._check(code, f"launching {self.name}")

    def _scratch(self, blocks: int) -> ctypes.c_uint64:
        """Memory that the kernel asks for beside its arguments, from torch."""
        if not self.metadata.global_scratch_size:
            return ctypes.c_uint64(0)
        import torch

        size = blocks * self.metadata.global_scratch_size
        self._held = torch.empty(size, dtype=torch.int8, device="cuda")
        return ctypes.c_uint64(self._held.data_ptr())

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self._call("cuFuncGetAttribute", ctypes.byref(value), number, self.function)
        return value.value

    def _call(self, function: str, *arguments: Any) -> None:
        self._check(getattr(self._cuda, function)(*arguments), f"{self.name}: {function}")

    def _check(self, code: int, what: str) -> None:
        if code:
            words = ctypes.c_char_p()
            self._cuda.cuGetErrorString(code, ctypes.byref(words))
            text = (words.value or b"unknown error").decode()
            raise RuntimeError(f"{what}: {text} ({code})")


def passed(types: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """The arguments as the kernel takes them; constants are in its code."""
    values: list[Any] = []
    for kind, argument in zip(types, arguments, strict=True):
        if isinstance(kind, tuple):
            values += passed(kind, argument)
        elif kind == "constexpr":
            continue
        elif kind.startswith("*"):
            at = argument.data_ptr() if hasattr(argument, "data_ptr") else int(argument or 0)
            values.append(ctypes.c_uint64(at))
        elif kind in _INTEGERS:
            values.append(_INTEGERS[kind](int(argument)))
        elif kind in ("fp32", "fp64"):
            real = ctypes.c_float if kind == "fp32" else ctypes.c_double
            values.append(real(float(argument)))
        else:
            raise TypeError(f"an argument of the type {kind} {_UNKNOWN}")
    return values


def install(target: Target, make: Callable[[Any, str, dict[str, Any]], Kernel]) -> None:
    """Have Triton's launches compile for this target, and use what `make` makes of a kernel."""
    import triton.compiler  # pyright: ignore[reportMissingImports]
    from triton.runtime import driver  # pyright: ignore[reportMissingImports]

    def compiled(src: Any, target: Any = None, options: Any = None, **_: Any) -> Kernel:
        return make(src, *lower(src, target, options))

    setattr(triton.compiler, "compile", compiled)  # noqa: B010
    driver.set_active(target)  # pyright: ignore


def warm_up(capability: int) -> None:
    """Find out what Triton asks other programs for, while they may be started: it remembers."""
    from triton.backends.nvidia import compiler  # pyright: ignore[reportMissingImports]

    compiler.ptx_get_version(compiler.get_ptxas(capability).version)  # pyright: ignore


def _driver() -> Any:
    library = ctypes.CDLL("libcuda.so.1")
    library.cuModuleLoadData.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
    return library
