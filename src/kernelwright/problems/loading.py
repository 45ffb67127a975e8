"""Loading problems from files: declared ones, and plain functions with example inputs."""

import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from kernelwright.errors import KernelwrightError, ProblemError
from kernelwright.model import content_hash
from kernelwright.problems.declaration import Problem
from kernelwright.problems.derive import Example, derive_problem, describe_examples
from kernelwright.problems.reference import ProblemReference


def load_problem(reference: ProblemReference) -> Problem:
    """Load a problem; its file is run as Python.

    A function decorated with `@problem` is taken as declared. A plain function is taken with the
    example inputs of its module (`get_inputs()`, or `example_shapes`), and what was derived from
    them is said in `declaration.derived`.

    Raises:
        ProblemError: the file cannot be read or run, or it is not clear which function is meant.
    """
    path = Path(reference.path)
    if not path.is_file():
        raise ProblemError(f"there is no problem file '{path}'")
    if path.suffix == ".pkl":
        return _load_pickled(path)
    module = _run_file(path)
    chosen = _choose(module, path, reference.function)
    if isinstance(chosen, Problem):
        return chosen
    return derive_problem(chosen, _module_examples(module, chosen, path))


def reference_from_callable(
    function: Callable[..., Any],
    example_inputs: Sequence[Any] | Mapping[str, Any],
    folder: Path,
) -> ProblemReference:
    """Write a function, with what its example inputs tell, to a file that `load_problem` reads.

    Args:
        function: Any Python function on tensors, or a `Problem`; closures are carried along.
        example_inputs: Tensors and scalars by position or by name.
        folder: Where the file goes; made if missing.

    Raises:
        ProblemError: the function or its examples cannot be used.
    """
    payload: dict[str, Any]
    if isinstance(function, Problem):
        payload = {"problem": function}
    else:
        payload = {"function": function, "examples": describe_examples(function, example_inputs)}
        derive_problem(function, payload["examples"])  # complain now, while the user is here
    try:
        data = cloudpickle.dumps(payload)
    except Exception as error:
        raise ProblemError(f"the function cannot be stored: {error}") from error
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"problem-{content_hash(data)[:16]}.pkl"
    path.write_bytes(data)
    return ProblemReference(str(path.resolve()), None)


def _load_pickled(path: Path) -> Problem:
    try:
        payload = cloudpickle.loads(path.read_bytes())
    except Exception as error:
        raise ProblemError(f"the stored problem '{path}' cannot be read: {error}") from error
    if "problem" in payload:
        return payload["problem"]
    return derive_problem(payload["function"], payload["examples"])


def _run_file(path: Path) -> ModuleType:
    """Import a file under a name of its own; problems beside it may import one another."""
    name = f"_kernelwright_problem_{content_hash(str(path.resolve()))[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ProblemError(f"'{path}' is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except KernelwrightError:
        raise
    except SyntaxError as error:
        raise ProblemError(f"'{path}' line {error.lineno} is not Python: {error.msg}") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a file may well end in sys.exit()
        raise ProblemError(
            f"'{path}' fails while it is imported: {type(error).__name__}: {error}"
        ) from error
    return module


def _choose(module: ModuleType, path: Path, name: str | None) -> Any:
    problems = _unique({n: v for n, v in vars(module).items() if isinstance(v, Problem)})
    functions = {
        n: v
        for n, v in vars(module).items()
        if inspect.isfunction(v) and v.__module__ == module.__name__ and n != "get_inputs"
    }
    if name is not None:
        chosen = vars(module).get(name)
        if not isinstance(chosen, Problem) and not callable(chosen):
            known = ", ".join({**problems, **functions}) or "none"
            raise ProblemError(f"'{path}' has no function '{name}', it has {known}")
        return chosen
    candidates = problems or {n: v for n, v in functions.items() if not n.startswith("_")}
    if len(candidates) == 1:
        return next(iter(candidates.values()))
    if not candidates:
        raise ProblemError(
            f"'{path}' has no problem: decorate a function with @problem, or add get_inputs() "
            "beside a plain one"
        )
    kind = "problems" if problems else "functions"
    listed = ", ".join(candidates)
    raise ProblemError(
        f"'{path}' has several {kind} ({listed}): say which, {path.name}:{next(iter(candidates))}"
    )


def _unique(problems: dict[str, Problem]) -> dict[str, Problem]:
    """One name for each problem, though a module may bind it to several."""
    found: dict[int, str] = {}
    for name, value in problems.items():
        found.setdefault(id(value), name)
    return {name: problems[name] for name in found.values()}


def _module_examples(
    module: ModuleType, function: Callable[..., Any], path: Path
) -> dict[str, Example]:
    if hasattr(module, "get_inputs"):
        try:
            examples = module.get_inputs()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise ProblemError(
                f"get_inputs() of '{path}' fails: {type(error).__name__}: {error}"
            ) from error
        return describe_examples(function, examples)
    if hasattr(module, "example_shapes"):
        return describe_examples(function, module.example_shapes)
    raise ProblemError(
        f"'{function.__name__}' in '{path}' is a plain function without example inputs: decorate "
        "it with @problem, or add get_inputs() that returns its arguments, or example_shapes = "
        "{'x': (4096, 1024), ...}"
    )
