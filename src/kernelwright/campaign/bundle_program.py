"""Judge the kernels of this bundle on this machine; `python evaluate.py --help` says how.

Needs Python 3.11 or newer with torch, and compilers: g++ or clang++, and nvcc for CUDA C++.
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from sysconfig import get_config_var

FOLDER = Path(__file__).resolve().parent


def fail(sentence: str) -> None:
    """Say what is missing; exit code 2."""
    print(f"kernelwright: {sentence}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036
        fail(f"Python {sys.version.split()[0]} is too old: 3.11 or newer is needed")
    sys.dont_write_bytecode = True
    others = [entry for entry in sys.path if entry and Path(entry).resolve() != FOLDER]
    compiled = FOLDER / "compiled" / str(get_config_var("SOABI"))
    # what is compiled comes last: this machine's own fits its torch
    sys.path[:] = [str(FOLDER / "source"), str(FOLDER / "packages"), *others, str(compiled)]
    if find_spec("torch") is None:
        fail(f"{sys.executable} has no torch")
    if find_spec("numpy") is None:
        brought = ", ".join(path.name for path in (FOLDER / "compiled").iterdir())
        fail(f"{sys.executable} has no numpy, and the bundle's is for {brought}: install it there, "
             "or pack the bundle with the same version of Python")  # fmt: skip
    from kernelwright.evaluation.bundled import main

    main(FOLDER)
