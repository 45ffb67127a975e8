"""The plainest kernel that is right: loops in the order of the index notation, sums in double.

It shows the prototype with a body that passes the check, as a start for kernels written by hand.
"""

import math
from collections import Counter

from kernelwright.codegen.naming import without_reserved
from kernelwright.expr import (
    Apply,
    Axis,
    Constant,
    Extent,
    Kinds,
    Load,
    Node,
    Order,
    Output,
    Parameter,
    Program,
    Reduce,
    Scan,
    free_axes,
    substitute,
    walk,
)
from kernelwright.model import Dtype, Signature, dimension_to_c

_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "eq": "==", "ne": "!=", "lt": "<", "le": "<=",
    "gt": ">", "ge": ">=", "and": "&&", "or": "||",
}  # fmt: skip
_CALLS = {
    "neg": "(-{0})", "reciprocal": "(1.0 / {0})", "fma": "({0} * {1} + {2})", "not": "(!{0})",
    "rsqrt": "(1.0 / std::sqrt({0}))", "sigmoid": "(1.0 / (1.0 + std::exp(-{0})))",
    "round_even": "std::nearbyint({0})", "where": "({0} ? {1} : {2})", "isnan": "std::isnan({0})",
    "isinf": "std::isinf({0})", "to_float": "(double){0}", "to_int": "(int64_t){0}",
    "to_bool": "({0} != 0)", "max": "greatest({0}, {1})", "min": "least({0}, {1})",
    "sign": "(({0} > 0) - ({0} < 0))", "floordiv": "floor_divide({0}, {1})",
    "mod": "({0} - floor_divide({0}, {1}) * {1})", "round_to_f32": "(double)(float){0}",
    "round_to_bf16": "(double)to_float(from_float<bf16>({0}))",
    "round_to_f16": "(double)to_float(from_float<f16>({0}))",
}  # fmt: skip
_HELPERS = {
    "greatest": """template <typename T>  // NaN wins, as in torch
static T greatest(T a, T b) { return a != a || a > b ? a : b; }
""",
    "least": """template <typename T>  // NaN wins, as in torch
static T least(T a, T b) { return a != a || a < b ? a : b; }
""",
    "is_greater": """template <typename T>  // NaN is greater than any number
static bool is_greater(T a, T b) { return a > b || (a != a && b == b); }
""",
    "floor_divide": """static inline double floor_divide(double a, double b) {
    return std::floor(a / b);
}
static inline int64_t floor_divide(int64_t a, int64_t b) {
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
}
""",
}
_START = {
    "sum": "0", "prod": "1", "max": "-INFINITY", "min": "INFINITY", "any": "false", "all": "true",
}  # fmt: skip
_STEP = {
    "sum": "{0} += {1};", "prod": "{0} *= {1};", "max": "{0} = greatest({0}, {1});",
    "min": "{0} = least({0}, {1});", "any": "{0} = {0} || {1};", "all": "{0} = {0} && {1};",
}  # fmt: skip
_PROMOTING = frozenset({"max", "min", "floordiv", "mod", "where"})
"""Operations whose last two arguments must have one type in C."""
_TYPES = {"float": "double", "int": "int64_t", "bool": "bool"}


def plain_kernel(
    signature: Signature, program: Program | None, dtype: Dtype, entry: str = "kernel"
) -> str:
    """A complete source file.

    Args:
        signature: of the problem.
        program: its expression form; None: the body is left to the reader and reports an error.
        dtype: of the workload.
        entry: name of the exported function.
    """
    body = ["    return 1;  // write the outputs, then return 0"]
    if program is not None:
        program = without_reserved(program, entry)
        signature = program.signature
        taken = {t.name for t in signature.tensors} | {s.name for s in signature.scalars}
        taken |= set(signature.dimensions)
        body = [line for o in program.outputs for line in _nest(program, o, dtype, taken)]
        body.append("    return 0;")
    text = "\n".join(body)
    helpers = "".join(code for name, code in _HELPERS.items() if f"{name}(" in text)
    parts = signature.prototype(entry, dtype).replace(", ", ",\n    ").replace("(", "(\n    ", 1)
    return (
        '#include "kernelwright.h"\n\n#include <cmath>\n#include <cstdlib>\n\n'
        f"{helpers}{chr(10) if helpers else ''}{_prepacking(signature, dtype, entry)}"
        f'extern "C" {parts} {{\n{text}\n}}\n'
    )


def _prepacking(signature: Signature, dtype: Dtype, entry: str) -> str:
    """A comment with the optional functions that pack static inputs; empty where none is static."""
    prototypes = signature.prepare_prototypes(entry, dtype)
    if not prototypes:
        return ""
    names = ", ".join(tensor.name for tensor in signature.static_inputs)
    lines = [f"Weights ({names}) may be packed once, outside of the timed calls; export both:"]
    lines += [f'    extern "C" {prototype};' for prototype in prototypes]
    return "".join(f"// {line}\n" for line in lines)


def _nest(program: Program, output: Output, dtype: Dtype, taken: set[str]) -> list[str]:
    """The loops that write one output; adds the names that it declares to those taken."""
    writer = _Writer(program, dtype, taken)
    writer.uses.update(c for n in walk(output.body) if not isinstance(n, Load) for c in n.children)
    carried = {
        node.at.name
        for node in walk(output.body)
        if isinstance(node, Scan) and isinstance(node.at, Axis)
    }
    outermost = scope = _Scope(writer, None, frozenset(), 1)
    for axis, dim in zip(output.axes, output.dims, strict=True):
        parallel = axis == output.axes[0] and axis not in carried
        scope = scope.loop(axis, dim, parallel)
    target = next(t for t in program.signature.outputs if t.name == output.name)
    index = _flat([writer.names[axis] for axis in output.axes], target.dims)
    value = scope.text(output.body)
    scope.emit(_store(f"{output.name}[{index}]", value, target.resolve(dtype)))
    return outermost.closed()


def _store(place: str, value: str, dtype: Dtype) -> str:
    if dtype in (Dtype.BF16, Dtype.F16):
        return f"from_float((float){_wrapped(value)}, &{place});"
    return f"{place} = ({dtype.c_type}){_wrapped(value)};"


def _wrapped(text: str) -> str:
    return text if text.isidentifier() or text.startswith("(") else f"({text})"


def _flat(indices: list[str], dims: tuple[str, ...]) -> str:
    """Row-major position."""
    text = "0"
    for index, dim in zip(indices, dims, strict=True):
        outer = text if text.isidentifier() else f"({text})"
        text = index if text == "0" else f"{outer} * {dimension_to_c(dim)} + {index}"
    return text


class _Writer:
    """What all scopes of one output share."""

    def __init__(self, program: Program, dtype: Dtype, taken: set[str]) -> None:
        self.signature = program.signature
        self.dtype = dtype
        self.kinds = Kinds(program.signature)
        self.uses: Counter[Node] = Counter()
        self.names: dict[str, str] = {}
        self.taken = taken

    def fresh(self, hint: str) -> str:
        """A new identifier."""
        name, number = hint, 2
        while name in self.taken:
            name, number = f"{hint}{number}", number + 1
        self.taken.add(name)
        return name


class _Scope:
    """The body of one loop; terms go to the outermost scope that has their axes."""

    def __init__(
        self, writer: _Writer, parent: "_Scope | None", axes: frozenset[str], depth: int
    ) -> None:
        self.writer = writer
        self.parent = parent
        self.axes = axes
        self.depth = depth
        self.lines: list[str] = []
        self.known: dict[Node, str] = {}
        self._loop: tuple[list[str], _Scope] | None = None

    def emit(self, statement: str) -> None:
        """Add a statement."""
        self.lines.append("    " * self.depth + statement)

    def child(self, axis: str) -> "_Scope":
        """The body of a loop over one more axis, not yet placed."""
        self.writer.names[axis] = self.writer.fresh("i")
        return _Scope(self.writer, self, self.axes | {axis}, self.depth + 1)

    def loop(self, axis: str, dim: str, parallel: bool = False) -> "_Scope":
        """Open the loop that ends this scope; what is emitted here still goes before it."""
        inner = self.child(axis)
        name, extent = self.writer.names[axis], dimension_to_c(dim)
        head = [f"for (int64_t {name} = 0; {name} < {extent}; ++{name}) {{"]
        if parallel:
            head.insert(0, "#pragma omp parallel for")
        self._loop = (head, inner)
        return inner

    def closed(self) -> list[str]:
        """Every line of this scope and of the loop that it ends with."""
        if self._loop is None:
            return self.lines
        head, inner = self._loop
        indent = "    " * self.depth
        return [*self.lines, *(indent + h for h in head), *inner.closed(), f"{indent}}}"]

    def text(self, node: Node) -> str:
        """The C expression of a term; statements that it needs are emitted before."""
        is_named = isinstance(node, Reduce | Scan) or (
            isinstance(node, Apply) and self.writer.uses[node] > 1
        )
        if not is_named:
            return self._expression(node)
        home = self
        while home.parent is not None and free_axes(node) <= home.parent.axes:
            home = home.parent
        if node not in home.known:
            home.known[node] = home._statement(node)
        return home.known[node]

    def _statement(self, node: Node) -> str:
        """Emit what computes a term; the name of the result."""
        if isinstance(node, Reduce):
            return self._position(node) if node.op.startswith("arg") else self._reduction(node)
        if isinstance(node, Order):
            return self._order(node)
        if isinstance(node, Scan):
            return self._scan(node)
        name = self.writer.fresh("t")
        self.emit(f"const {self._type(node)} {name} = {self._expression(node)};")
        return name

    def _type(self, node: Node) -> str:
        return _TYPES[self.writer.kinds.of(node)]

    def _reduction(self, node: Reduce) -> str:
        name = self.writer.fresh(node.op)
        start = _START[node.op]
        if node.op in ("max", "min") and self._type(node) == "int64_t":
            start = "INT64_MIN" if node.op == "max" else "INT64_MAX"
        self.emit(f"{self._type(node)} {name} = {start};")
        inner = self.child(node.axis)
        inner.emit(_STEP[node.op].format(name, inner.text(node.body)))
        self._place(inner, node.axis, dimension_to_c(node.extent))
        return name

    def _position(self, node: Reduce) -> str:
        """Index of the first greatest or least value; NaN wins, as in torch."""
        name, best = self.writer.fresh("index"), self.writer.fresh("best")
        self.emit(f"int64_t {name} = 0;")
        self.emit(f"{self._type(node.body)} {best} = 0;")
        inner = self.child(node.axis)
        i, value = self.writer.names[node.axis], inner.text(node.body)
        sign = ">" if node.op == "argmax" else "<"
        better = f"{value} {sign} {best} || ({value} != {value} && {best} == {best})"
        inner.emit(f"if ({i} == 0 || {better}) {{ {best} = {value}; {name} = {i}; }}")
        self._place(inner, node.axis, dimension_to_c(node.extent))
        return name

    def _scan(self, node: Scan) -> str:
        """A running sum where the position is a loop's own variable, else a sum up to it."""
        name = self.writer.fresh("sum")
        if isinstance(node.at, Axis) and self.parent is not None:
            at = node.at.name
            own = at in self.axes and at not in self.parent.axes
            if own and free_axes(node.body) <= self.axes | {node.axis}:
                self.parent.emit(f"{self._type(node)} {name} = 0;")
                step = substitute(node.body, {node.axis: node.at})
                self.emit(f"{name} += {self.text(step)};")
                return name
        self.emit(f"{self._type(node)} {name} = 0;")
        position = self.text(node.at)
        inner = self.child(node.axis)
        inner.emit(f"{name} += {inner.text(node.body)};")
        self._place(inner, node.axis, f"{position} + 1")
        return name

    def _order(self, node: Order) -> str:
        """The one index that as many others come before as its position says."""
        name, before = self.writer.fresh("index"), self.writer.fresh("before")
        position = self.text(node.at)
        self.emit(f"int64_t {name} = 0;")
        outer = self.child(node.axis)
        own, i = outer.text(node.body), self.writer.names[node.axis]
        outer.emit(f"int64_t {before} = 0;")
        other = f"{node.axis} of another"
        inner = outer.child(other)
        value = inner.text(substitute(node.body, {node.axis: Axis(other)}))
        j = self.writer.names[other]
        first, second = (value, own) if node.largest else (own, value)
        ahead = f"is_greater({first}, {second})"
        equal = f"!is_greater({second}, {first}) && {j} < {i}"
        inner.emit(f"{before} += {ahead} || ({equal});")
        outer._place(inner, other, dimension_to_c(node.extent))
        outer.emit(f"if ({before} == {position}) {name} = {i};")
        self._place(outer, node.axis, dimension_to_c(node.extent))
        return name

    def _place(self, inner: "_Scope", axis: str, end: str) -> None:
        i = self.writer.names[axis]
        self.emit(f"for (int64_t {i} = 0; {i} < {end}; ++{i}) {{")
        self.lines += inner.closed()
        self.emit("}")

    def _expression(self, node: Node) -> str:
        match node:
            case Constant():
                return _literal(node.value)
            case Parameter():
                return f"({node.name} != 0)" if node.kind == "bool" else node.name
            case Extent():
                return f"({dimension_to_c(node.dim)})"
            case Axis():
                return self.writer.names[node.name]
            case Load():
                return self._load(node)
            case Apply():
                return self._apply(node)
            case _:
                raise TypeError(f"{type(node).__name__} has no plain form")

    def _load(self, node: Load) -> str:
        tensor = next(t for t in self.writer.signature.inputs if t.name == node.tensor)
        place = f"{node.tensor}[{_flat([self.text(i) for i in node.indices], tensor.dims)}]"
        dtype = tensor.resolve(self.writer.dtype)
        if dtype in (Dtype.BF16, Dtype.F16):
            return f"(double)to_float({place})"
        return f"(double){place}" if dtype.is_float else f"(int64_t){place}"

    def _apply(self, node: Apply) -> str:
        arguments = [self.text(argument) for argument in node.args]
        if node.op in _PROMOTING:
            kinds = [self.writer.kinds.of(argument) for argument in node.args[-2:]]
            if kinds[0] != kinds[1]:
                wanted = _TYPES["float" if "float" in kinds else "int"]
                arguments[-2:] = [f"({wanted})({text})" for text in arguments[-2:]]
        if node.op == "div" and self.writer.kinds.of(node.args[1]) != "float":
            arguments[1] = f"(double){arguments[1]}"
        if node.op in _INFIX:
            return f"({arguments[0]} {_INFIX[node.op]} {arguments[1]})"
        op = node.op
        if op == "round_to_workload":
            op = f"round_to_{self.writer.dtype}"
        if op == "round_to_f64":
            return arguments[0]
        call = f"std::{op}({', '.join(arguments)})"
        return _CALLS[op].format(*arguments) if op in _CALLS else call


def _literal(value: float | int | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"INT64_C({value})"
    if math.isnan(value):
        return "(double)NAN"
    if math.isinf(value):
        return "(double)INFINITY" if value > 0 else "(-(double)INFINITY)"
    return repr(value) if value >= 0 else f"({value!r})"
