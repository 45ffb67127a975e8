"""The reference's parameters in the order in which a caller passes them."""

import ast
from dataclasses import dataclass

from kernelwright.model import PublicProblem


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of the reference's Python signature."""

    name: str
    annotation: str
    """`Tensor`, `float`, `int` or `bool`."""
    default: str | None = None
    """Source text of the default value; None: the caller must pass it."""
    keyword_only: bool = False

    @property
    def is_tensor(self) -> bool:
        """Whether a tensor is expected."""
        return self.annotation == "Tensor"


def parameters_of(public: PublicProblem) -> tuple[Parameter, ...]:
    """Parameters of the reference, in its own order.

    The signature record holds tensors and scalars apart; how they interleave is read from the
    reference's text. Where the text is not there, tensors come first.
    """
    declared = {t.name: Parameter(t.name, "Tensor") for t in public.signature.inputs}
    for scalar in public.signature.scalars:
        default = None if scalar.default is None else repr(scalar.default)
        declared[scalar.name] = Parameter(scalar.name, scalar.kind, default)
    arguments = _arguments_in(public.reference_text, set(declared))
    if arguments is None:
        return _legal(tuple(declared.values()))
    keyword_only = {argument.arg for argument in arguments.kwonlyargs}
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    ordered = tuple(
        Parameter(p.name, p.annotation, p.default, name in keyword_only)
        for name in names
        for p in (declared[name],)
    )
    return _legal(ordered)


def _arguments_in(text: str, names: set[str]) -> ast.arguments | None:
    """Arguments of the function in a source text that takes exactly these names."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            found = node.args
            if {a.arg for a in (*found.posonlyargs, *found.args, *found.kwonlyargs)} == names:
                return found
    return None


def _legal(parameters: tuple[Parameter, ...]) -> tuple[Parameter, ...]:
    """Drop the default of a positional parameter that a required one follows."""
    required_after = False
    result: list[Parameter] = []
    for parameter in reversed(parameters):
        if not parameter.keyword_only:
            if parameter.default is None:
                required_after = True
            elif required_after:
                parameter = Parameter(parameter.name, parameter.annotation)
        result.append(parameter)
    return tuple(reversed(result))
