"""Compiles the kernels that a Triton candidate launches in a trial call, without a GPU.

    python -I -S -B triton_build.py PATHS ARCHITECTURE

In the current folder: `kernel.py`, and `call.json` with `entry`, `tensors` (name, shape, element
type), `keywords` (dimensions, scalars and tunables). Tensors have a shape and a type but no memory.
What `ptxas` says goes to standard output. The exit status is 1 where a kernel does not compile, and
3 where the trial call ended in other ways: without a GPU that is no verdict.
"""

import importlib
import json
import linecache
import os
import subprocess
import sys
import traceback
import types
from typing import Any

_FILE = "kernel.py"
_NO_KERNEL, _UNKNOWN = 1, 3
_MISTAKES = (TypeError, NameError, AttributeError, SyntaxError, ImportError)
"""What no GPU would change."""
_ELEMENTS = {
    "f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16", "i64": "int64",
    "i32": "int32", "i16": "int16", "i8": "int8", "u8": "uint8", "bool": "bool",
}  # fmt: skip
_HOPPER = {
    "max_shared_mem": 232448, "max_num_regs": 65536, "multiprocessor_count": 132, "warpSize": 32,
}  # fmt: skip


class Failed(Exception):
    """A kernel does not compile."""


def main() -> None:
    """See above."""
    paths, architecture = json.loads(sys.argv[1]), sys.argv[2]
    sys.path += paths
    with open("call.json", encoding="utf-8") as file:
        call = json.load(file)
    capability = int(architecture[3:].rstrip("af"))
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))
    launching: Any = importlib.import_module("triton_launch")
    launching.warm_up(capability)
    target = launching.Target(capability, _HOPPER, lambda: 0, "meta")
    made: list[str] = []

    def assembled(source: Any, ptx: str, said: dict[str, Any]) -> Any:
        kernel = launching.Kernel(source, ptx, said)
        made.append(kernel.name)
        _assemble(ptx, capability, len(made), said)
        return kernel

    def watched(source: Any, target: Any, options: Any) -> Any:
        try:
            return lower(source, target, options)
        except Exception as error:
            text = "".join(traceback.format_exception_only(type(error), error))
            raise Failed(text.strip()) from None

    lower, launching.lower = launching.lower, watched
    launching.install(target, assembled)
    try:
        _call(call)
    except Failed as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(_NO_KERNEL)
    except BaseException as error:
        sys.stderr.write(_words(error))
        sys.exit(_NO_KERNEL if isinstance(error, _MISTAKES) else _UNKNOWN)


def _words(error: BaseException) -> str:
    """The exception, with the candidate's own lines."""
    found = traceback.TracebackException.from_exception(error)
    frames = [frame for frame in found.stack if frame.filename == _FILE]
    found.stack = traceback.StackSummary.from_list(frames)
    found.__context__ = found.__cause__ = None
    return "".join(found.format())


def _call(call: dict[str, Any]) -> None:
    import torch

    with open(_FILE, encoding="utf-8") as file:
        source = file.read()
    linecache.cache[_FILE] = (len(source), None, source.splitlines(keepends=True), _FILE)
    module = types.ModuleType("kernel")
    module.__file__ = _FILE
    sys.modules["kernel"] = module
    exec(compile(source, _FILE, "exec", dont_inherit=True), module.__dict__)
    tensors = [
        torch.empty(shape, dtype=getattr(torch, _ELEMENTS[dtype]), device="meta")
        for _, shape, dtype in call["tensors"]
    ]
    torch.set_grad_enabled(False)
    module.__dict__[call["entry"]](*tensors, **call["keywords"])


def _assemble(ptx: str, capability: int, number: int, said: dict[str, Any]) -> None:
    from triton.backends.nvidia import compiler  # pyright: ignore[reportMissingImports]

    with open(f"{number}.ptx", "w", encoding="utf-8") as file:
        file.write(ptx)
    command = [compiler.get_ptxas(capability).path, "-v"]  # pyright: ignore
    command += [f"--gpu-name={compiler.sm_arch_from_capability(capability)}"]
    command += [f"{number}.ptx", "-o", f"{number}.cubin"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    sys.stdout.write(done.stderr)
    sys.stdout.write(f"shared memory of {said['name']}: {said['shared']} bytes\n")
    sys.stdout.flush()
    if done.returncode != 0:
        raise Failed(f"ptxas ended with status {done.returncode}")


if __name__ == "__main__":
    main()
