"""The interpreter's half of the host of a Python candidate; `python_host.cpp` is the other.

    python -I -S -B python_host.py LIBRARY PLACES FACTS SOCKET PAGE GO … ARTIFACT ENTRY ARENA…
    python -I -S -B python_host.py LIBRARY PLACES SERVER

PLACES and FACTS are JSON: `paths` (where packages lie), `withheld` (modules that do not exist for
a kernel) and `device` (where `triton_host.py` is, for kernels on a GPU); `tensors` (name,
dimension expressions and element type, inputs first), `dimensions` and `scalars` (name and kind).
ARTIFACT is the path or the descriptor of more: `source`, `tunables`.

The second form is a fork server: it imports what is slow to import and forks a worker for each
connection that arrives at the socket SERVER. What a worker is to do is received by that worker;
the server itself never holds anything of a candidate, so that no other can find it there.

This runs as a program of its own and imports nothing of ours. Everything that may run the
candidate's code is called by the native half, the calls under its clock.
"""

import contextlib
import ctypes
import fcntl
import gc
import importlib
import inspect
import json
import linecache
import math
import os
import re
import signal
import socket
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

    def __init__(
        self,
        torch: Any,
        facts: dict[str, Any],
        make: Callable[[int, int, Any], Any],
        device: str = "cpu",
    ) -> None:
        self._make, self._empty, self._device = make, torch.empty, device
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
        keywords = self._keywords(integers, doubles)
        return [
            self._tensor(int(integers[number]), shape, dtype)
            for number, (shape, dtype) in enumerate(self._shapes(keywords))
        ], keywords

    def shapes(self, integers: Any, doubles: Any) -> tuple[list[Any], dict[str, Any]]:
        """The same with tensors that have no memory; addresses do not matter."""
        keywords = self._keywords(integers, doubles)
        found = self._shapes(keywords)
        return [self._empty(shape, dtype=dtype, device="meta") for shape, dtype in found], keywords

    def _shapes(self, keywords: dict[str, Any]) -> list[tuple[tuple[int, ...], Any]]:
        return [
            (tuple(eval(dim, {"__builtins__": {}}, keywords) for dim in dims), dtype)
            for dims, dtype in self._tensors
        ]

    def _keywords(self, integers: Any, doubles: Any) -> dict[str, Any]:
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
        return keywords

    def _tensor(self, address: int, shape: tuple[int, ...], dtype: Any) -> Any:
        key = (address, shape, dtype)
        if key not in self._made:
            count = math.prod(shape)
            if count == 0:
                return self._empty(shape, dtype=dtype, device=self._device)
            self._made[key] = self._make(address, count, dtype).view(shape)
        return self._made[key]


class Kernel:
    """The candidate: imported by `load`, called by `call`; failures are reported, not raised."""

    def __init__(
        self,
        arguments: Arguments,
        path: str,
        entry: str,
        fail: Callable[[int, bytes], None],
        device: Any = None,
    ) -> None:
        self._arguments = arguments
        self._device = device
        self._path = path
        self._entry = entry
        self._fail = fail
        self._string_at = ctypes.string_at
        self._function: Callable[..., Any] = _nothing
        self._tunables: dict[str, int | str] = {}
        self._bound: dict[bytes, tuple[list[Any], dict[str, Any]]] = {}

    def load(self) -> int:
        """Import the module, find the entry and hold it against the call that it will get."""
        path = int(self._path) if self._path.isdigit() else self._path
        with open(path, encoding="utf-8") as file:
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

    def rehearse(self, integers: Any, doubles: Any) -> None:
        """A call on tensors without memory, so that what it launches is compiled, and not launched.

        Whatever it raises, the call on real tensors will tell.
        """
        assert self._device is not None
        with contextlib.suppress(Exception), self._device.rehearsing():
            tensors, keywords = self._arguments.shapes(integers, doubles)
            self._function(*tensors, **keywords, **self._tunables)

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


def _lent(address: int, count: int, dtype: Any) -> Any:
    """A flat tensor on lent memory."""
    import torch

    buffer = (ctypes.c_char * (count * dtype.itemsize)).from_address(address)
    return torch.frombuffer(buffer, dtype=dtype, count=count)


def _nothing(*_: Any, **__: Any) -> None:
    pass


def _import_packages() -> None:
    """Import what kernels may import, where it is installed; not one thread may start.

    torch's runtime binds the thread that loads it to the first place of its team. numba counts the
    processors of its importer, and its own runtime those of the thread that loads it, which would
    otherwise happen at the first parallel call: they are loaded with all places allowed.
    """
    importlib.import_module("torch")
    bound = os.sched_getaffinity(0)
    team = {int(number) for number in re.findall(r"\d+", os.environ.get("OMP_PLACES", ""))}
    os.sched_setaffinity(0, team or bound)
    for name in ("numpy", "numba", "numba.np.ufunc.omppool"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    os.sched_setaffinity(0, bound)


def _serve_forks(native: Any, number: int, device: Any) -> list[str]:
    """Fork a worker for each connection that arrives; returns in the worker alone, its words."""
    _import_packages()
    if device is not None:
        device.warm_up()
    first = native.kernelwright_separate()
    if first == 0:
        os._exit(0)
    error = -first if first < 0 else os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
    if error:
        sys.exit(f"no namespaces can be made: {os.strerror(error)}")
    judge = socket.socket(fileno=number)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nothing stays of those that end
    gc.collect()
    gc.freeze()
    judge.send(b"r")
    while (number := _next_connection(judge)) >= 0:
        if len(os.listdir("/proc/self/task")) != 1:
            sys.exit("there is more than one thread: what the others hold, no fork could release")
        process = native.kernelwright_separate()
        if process == 0:
            judge.close()
            return _separated(native, number)
        if process < 0:
            sys.exit(f"no process can be forked: {os.strerror(-process)}")
        os.close(number)
    sys.exit(0)


def _next_connection(judge: socket.socket) -> int:
    """The descriptor that comes next; -1 when the judge is gone."""
    _, descriptors, _, _ = socket.recv_fds(judge, 1, 1)
    return descriptors[0] if descriptors else -1


def _separated(native: Any, number: int) -> list[str]:
    """The first process of new namespaces: fork the worker, which returns, and watch it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    connection = socket.socket(fileno=number)
    connection.send(b"w")  # the judge is told by whom
    worker = os.fork()
    if worker:
        _close_all_but({number})
        native.kernelwright_watch(number, worker)
    return _receive(connection)


def _receive(connection: socket.socket) -> list[str]:
    """The words of a command line; the descriptors in it get the numbers that they have there."""
    _, (text, *_), _, _ = socket.recv_fds(connection, 1, 1)
    with open(text, encoding="utf-8") as file:
        asked = json.load(file)
    numbers: list[int] = asked["descriptors"]
    found: list[int] = []
    while len(found) + 1 < len(numbers):
        found += socket.recv_fds(connection, 1, 253)[1]
    found.append(connection.detach())
    free = max(*numbers, *found) + 1
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, free) for fd in found]
    _close_all_but({0, 1, 2, *high})
    for number, fd in zip(numbers, high, strict=True):
        os.dup2(fd, number, inheritable=False)
        os.close(fd)
    os.dup2(1, 2)
    return asked["words"]


def _close_all_but(kept: set[int]) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(name))


def main() -> None:
    """Start alone, or forked from a server that starts here."""
    library_path, text, *rest = sys.argv[1:]
    places = json.loads(text)
    sys.path += places["paths"]
    # PyDLL: the interpreter's lock stays held, so that between calls no thread of the candidate
    # runs Python, and a call need not take the lock first.
    native = ctypes.PyDLL(library_path)
    native.kernelwright_separate.restype = ctypes.c_long
    device: Any = None
    if "device" in places:
        sys.path.append(places["device"])
        device = importlib.import_module("triton_host")
    if len(rest) == 1:
        rest = _serve_forks(native, int(rest[0]), device)
        if device is None:
            native.kernelwright_own_memory()
        if "numpy.random" in sys.modules:
            sys.modules["numpy.random"].seed()  # siblings do not draw the same; `random` knows
    _work(native, device, places["withheld"], *rest)


def _work(native: Any, device: Any, withheld: Sequence[str], text: str, *rest: str) -> None:
    """Map, limit, serve; ends with the process."""
    encoded = [b"host", *(word.encode() for word in rest)]
    words = (ctypes.c_char_p * len(encoded))(*encoded)
    status = native.kernelwright_greet(len(encoded), words)
    if status:
        sys.exit(status)
    native.kernelwright_fail.argtypes = (ctypes.c_int, ctypes.c_char_p)
    try:
        _import_packages()
        import torch

        torch.set_num_threads(int(rest[4]))
        torch.set_grad_enabled(False)
        make: Callable[[int, int, Any], Any] = _lent
        if device is not None:
            make = device.start(native)
        arguments = Arguments(torch, json.loads(text), make, "cuda" if device else "cpu")
        artifact, entry = rest[7:9]
        kernel = Kernel(arguments, artifact, entry, native.kernelwright_fail, device)
        import_hooks: list[Any] = sys.meta_path
        import_hooks.insert(0, Withheld(withheld))
    except BaseException as error:
        problem = "".join(traceback.format_exception(error, limit=-_FRAMES))
        native.kernelwright_fail(_HOST_FAILED, problem[-_MOST_TEXT:].encode())
    load = ctypes.PYFUNCTYPE(ctypes.c_int)(kernel.load)
    call = ctypes.PYFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ctypes.c_int64), ctypes.POINTER(ctypes.c_double)
    )(kernel.call)
    rehearse: Any = None
    if device is not None:
        rehearse = ctypes.PYFUNCTYPE(
            None, ctypes.POINTER(ctypes.c_int64), ctypes.POINTER(ctypes.c_double)
        )(kernel.rehearse)
    sys.argv[1:] = []
    native.kernelwright_prepare(len(encoded), words)
    native.kernelwright_serve(load, call, rehearse)


if __name__ == "__main__":
    main()
