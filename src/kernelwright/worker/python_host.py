"""The interpreter's half of the host of a Python candidate; `python_host.cpp` is the other.

    python -I -S -B python_host.py LIBRARY FACTS SOCKET PAGE GO DONE THREADS … ARTIFACT ENTRY ARENA…

FACTS is JSON: `paths` (where packages lie), `withheld` (modules that do not exist for a kernel),
`tensors` (name, dimension expressions and element type, inputs first), `dimensions` and `scalars`
(name and kind). ARTIFACT is JSON too: `source` and `tunables`.

This runs as a program of its own and imports nothing of ours. Everything that may run the
candidate's code is called by the native half, the calls under its clock.
"""

import contextlib
import ctypes
import gc
import inspect
import json
import linecache
import math
import os
import sys
import traceback
import types
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from typing import Any, NoReturn

FILE = "kernel.py"
"""What tracebacks call the candidate."""
_HOST_FAILED, _LOAD_FAILED, _MISSING_SYMBOL, _RAISED, _EXHAUSTED = 1, 2, 3, 7, 8
_MOST_TEXT = 1000
_MOST_BINDINGS = 1024
_FRAMES = 3


class Withheld(MetaPathFinder):
    """Refuses modules that a kernel must not import, where the file system does not hide them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(names)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """See `MetaPathFinder`."""
        if name.partition(".")[0] in self._names:
            text = f"No module named '{name}': a kernel may import torch, numpy and numba"
            raise ModuleNotFoundError(text, name=name)


class Arguments:
    """Turns the numbers of a call into tensors on lent memory, dimensions and scalars."""

    def __init__(self, torch: Any, facts: dict[str, Any]) -> None:
        self._frombuffer, self._empty = torch.frombuffer, torch.empty
        self._element = {
            "f64": torch.float64, "f32": torch.float32, "f16": torch.float16,
            "bf16": torch.bfloat16, "i64": torch.int64, "i32": torch.int32, "i16": torch.int16,
            "i8": torch.int8, "u8": torch.uint8, "bool": torch.bool,
        }  # fmt: skip
        self._tensors = [
            (tuple(compile(dim, dim, "eval") for dim in dims), self._element[dtype])
            for _, dims, dtype in facts["tensors"]
        ]
        self.names = [name for name, _, _ in facts["tensors"]]
        self.keywords = [*facts["dimensions"], *(name for name, _ in facts["scalars"])]
        self._dimensions: list[str] = facts["dimensions"]
        self._scalars: list[tuple[str, str]] = [(name, kind) for name, kind in facts["scalars"]]
        self._made: dict[tuple[int, tuple[int, ...], Any], Any] = {}

    def bind(self, integers: Any, doubles: Any) -> tuple[list[Any], dict[str, Any]]:
        """Positional and keyword arguments, from the two arrays of the shared page."""
        place = len(self._tensors)
        keywords: dict[str, Any] = {}
        for name in self._dimensions:
            keywords[name] = int(integers[place])
            place += 1
        double = 0
        for name, kind in self._scalars:
            if kind == "float":
                keywords[name] = float(doubles[double])
                double += 1
            else:
                keywords[name] = bool(integers[place]) if kind == "bool" else int(integers[place])
                place += 1
        tensors: list[Any] = []
        for number, (dims, dtype) in enumerate(self._tensors):
            shape = tuple(eval(dim, {"__builtins__": {}}, keywords) for dim in dims)
            tensors.append(self._tensor(int(integers[number]), shape, dtype))
        return tensors, keywords

    def _tensor(self, address: int, shape: tuple[int, ...], dtype: Any) -> Any:
        key = (address, shape, dtype)
        if key not in self._made:
            count = math.prod(shape)
            if count == 0:
                return self._empty(shape, dtype=dtype)
            buffer = (ctypes.c_char * (count * dtype.itemsize)).from_address(address)
            self._made[key] = self._frombuffer(buffer, dtype=dtype, count=count).view(shape)
        return self._made[key]


class Kernel:
    """The candidate: imported by `load`, called by `call`; failures are reported, not raised."""

    def __init__(
        self, arguments: Arguments, path: str, entry: str, fail: Callable[[int, bytes], None]
    ) -> None:
        self._arguments = arguments
        self._path = path
        self._entry = entry
        self._fail = fail
        self._string_at = ctypes.string_at
        self._function: Callable[..., Any] = _nothing
        self._tunables: dict[str, int | str] = {}
        self._bound: dict[bytes, tuple[list[Any], dict[str, Any]]] = {}

    def load(self) -> int:
        """Import the module, find the entry and hold it against the call that it will get."""
        with open(self._path, encoding="utf-8") as file:
            artifact = json.load(file)
        source: str = artifact["source"]
        self._tunables = artifact["tunables"]
        lines = source.splitlines(keepends=True)
        linecache.cache[FILE] = (len(source), None, lines, FILE)  # tracebacks show the source
        module = types.ModuleType("kernel")
        module.__file__ = FILE
        sys.modules["kernel"] = module
        try:
            exec(compile(source, FILE, "exec", dont_inherit=True), module.__dict__)
            function = module.__dict__.get(self._entry)
            if not callable(function):
                text = f"there is no function '{self._entry}' at the top level of the module"
                self._report(_MISSING_SYMBOL, text)
            self._match(function)
        except BaseException as error:
            self._leave_if_asked(error)
            self._report(_LOAD_FAILED, _words(error))
        self._function = function
        gc.collect()
        gc.freeze()  # later collections look at the kernel's own objects alone
        return 0

    def _match(self, function: Callable[..., Any]) -> None:
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):
            return  # a compiled function: the first call tells
        keywords = dict.fromkeys([*self._arguments.keywords, *self._tunables])
        try:
            signature.bind(*self._arguments.names, **keywords)
        except TypeError as error:
            asked = ", ".join([*self._arguments.names, "*", *keywords])
            text = f"{self._entry}{signature} does not fit the call {self._entry}({asked}): {error}"
            self._report(_LOAD_FAILED, text)

    def call(self, integers: Any, doubles: Any) -> int:
        """One call; the arguments of a call that was made before are made once."""
        try:
            key = self._string_at(integers, 256) + self._string_at(doubles, 64)
            bound = self._bound.get(key)
            if bound is None:
                bound = self._bind(key, integers, doubles)
            result = self._function(*bound[0], **bound[1])
            if result is not None:
                text = f"it returned a {type(result).__name__}: it must write its outputs into "
                raise TypeError(f"{text}the tensors that it is given, and return None")
        except BaseException as error:
            self._leave_if_asked(error)
            memory = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
            self._report(_EXHAUSTED if memory else _RAISED, _words(error))
        return 0

    def _bind(self, key: bytes, integers: Any, doubles: Any) -> tuple[list[Any], dict[str, Any]]:
        tensors, keywords = self._arguments.bind(integers, doubles)
        if len(self._bound) >= _MOST_BINDINGS:
            self._bound.clear()
        self._bound[key] = tensors, {**keywords, **self._tunables}
        return self._bound[key]

    def _leave_if_asked(self, error: BaseException) -> None:
        if isinstance(error, SystemExit):
            with contextlib.suppress(Exception):
                os.write(2, f"SystemExit: {error.code}\n".encode())
            os._exit(error.code if isinstance(error.code, int) else int(error.code is not None))

    def _report(self, problem: int, text: str) -> NoReturn:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        data = text.encode(errors="replace")
        shown = data if len(data) <= _MOST_TEXT else b"..." + data[-_MOST_TEXT:]
        self._fail(problem, shown)
        os._exit(6)  # not reached: the native half has ended the process


def _words(error: BaseException) -> str:
    """The innermost frames that are the candidate's or called by it, and the exception."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != FILE:
        trace = trace.tb_next
    found = traceback.TracebackException(type(error), error, trace)
    frames = [frame for frame in found.stack if frame.filename != __file__]
    found.stack = traceback.StackSummary.from_list(frames[-_FRAMES:])
    text = "".join(found.format())
    for folder in sorted(sys.path, key=len, reverse=True):
        text = text.replace(f"{folder}/", "") if folder else text
    return "\n".join(line for line in text.splitlines() if line.strip(" ~^"))


def _nothing(*_: Any, **__: Any) -> None:
    pass


def main() -> None:
    """Start, map, limit, serve; ends with the process."""
    library_path, text, *rest = sys.argv[1:]
    facts = json.loads(text)
    encoded = [b"host", *(word.encode() for word in rest)]
    words = (ctypes.c_char_p * len(encoded))(*encoded)
    # PyDLL: the interpreter's lock stays held, so that between calls no thread of the candidate
    # runs Python, and a call need not take the lock first.
    native = ctypes.PyDLL(library_path)
    status = native.kernelwright_greet(len(encoded), words)
    if status:
        sys.exit(status)
    native.kernelwright_fail.argtypes = (ctypes.c_int, ctypes.c_char_p)
    sys.path += facts["paths"]
    try:
        import torch

        torch.set_num_threads(int(rest[4]))
        torch.set_grad_enabled(False)
        arguments = Arguments(torch, facts)
        artifact, entry = rest[7:9]
        kernel = Kernel(arguments, artifact, entry, native.kernelwright_fail)
        import_hooks: list[Any] = sys.meta_path
        import_hooks.insert(0, Withheld(facts["withheld"]))
    except BaseException as error:
        problem = "".join(traceback.format_exception(error, limit=-_FRAMES))
        native.kernelwright_fail(_HOST_FAILED, problem[-_MOST_TEXT:].encode())
    load = ctypes.PYFUNCTYPE(ctypes.c_int)(kernel.load)
    call = ctypes.PYFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ctypes.c_int64), ctypes.POINTER(ctypes.c_double)
    )(kernel.call)
    sys.argv[1:] = []
    native.kernelwright_prepare(len(encoded), words)
    native.kernelwright_serve(load, call)


if __name__ == "__main__":
    main()
