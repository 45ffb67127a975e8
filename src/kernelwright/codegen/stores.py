"""How outputs are written: whole vectors, streamed lines, scattered or single elements."""

from __future__ import annotations

from dataclasses import dataclass

from kernelwright.codegen.emit import Context, Scope, Value, bare
from kernelwright.codegen.sweeps import Sweep
from kernelwright.expr.polynomial import ONE
from kernelwright.expr.rowwise import Store, stride_of
from kernelwright.model import Dtype

_STREAMED = (Dtype.F32, Dtype.BF16, Dtype.F16)


@dataclass(frozen=True)
class Stores:
    """Statements for outputs; `features` collects the tunables that have an effect."""

    context: Context
    features: set[str]

    def streams(self, store: Store, sweep: Sweep) -> bool:
        """Whether whole lines of this output can be written: it advances by one per column."""
        dtype = self.context.dtypes[store.tensor]
        offset = self.context.integers.polynomial(store.offset)
        lead = next(
            (
                s
                for s in sweep.stores
                if self.context.dtypes[s.tensor] in _STREAMED
                and stride_of(self.context.integers.polynomial(s.offset), sweep.axis) == ONE
            ),
            None,
        )
        if lead is None or dtype not in _STREAMED:
            return False
        same = offset == self.context.integers.polynomial(lead.offset)
        return same and dtype.itemsize == self.context.dtypes[lead.tensor].itemsize

    def vector(self, scope: Scope, store: Store, sweep: Sweep) -> list[str]:
        """The statements that write one vector of an output."""
        value = scope.value(store.body)
        dtype = self.context.dtypes[store.tensor]
        offset = scope.offset(store.offset)
        contiguous = stride_of(offset, sweep.axis) == ONE
        if dtype.is_float:
            value = scope.spread(scope.as_float(value))
        elif dtype is Dtype.BOOL:
            value = scope.spread(scope.as_bool(value))
        else:
            value = scope.spread(scope.as_int(value, 64 if dtype is Dtype.I64 else value.width))
        if contiguous and dtype in _STREAMED:
            suffix = {Dtype.F32: "floats", Dtype.BF16: "bf16", Dtype.F16: "f16"}[dtype]
            streams = self.streams(store, sweep)
            scope.need(f"{'write' if streams else 'store'}_{suffix}")
            if streams:
                self.features.add("STREAM")
            verb = "write" if streams else "store"
            return [
                f"simd::{verb}({scope.address(store.tensor, offset)}, {bare(value.text)}, lanes);"
            ]
        if contiguous and not dtype.is_float:
            scope.need("integers")
            text = f"-{value.text}" if dtype is Dtype.BOOL else value.text
            return [f"simd::store_as({scope.address(store.tensor, offset)}, {text}, lanes);"]
        return self._scatter(scope, store, value, dtype, sweep.axis)

    def _scatter(
        self, scope: Scope, store: Store, value: Value, dtype: Dtype, axis: str
    ) -> list[str]:
        name = scope.local("result")
        column = self.context.axis_names[axis]
        offset = scope.offset_text(scope.offset(store.offset), {axis: f"({column} + lane)"})
        lines = [f"const {scope.type_of(value)} {name} = {bare(value.text)};"]
        loop = "for (int64_t lane = 0; lane < lanes.count; ++lane)"
        if dtype.is_float:
            scope.need("scalars_f16" if dtype is Dtype.F16 else "scalars")
            return [*lines, f"{loop} simd::put({store.tensor} + {offset}, {name}[lane]);"]
        sign = "-" if dtype is Dtype.BOOL else ""
        return [*lines, f"{loop} {store.tensor}[{offset}] = ({dtype.c_type})({sign}{name}[lane]);"]

    def scalar(self, scope: Scope, store: Store) -> str:
        """The statement that writes an output of one element per row."""
        value = scope.value(store.body)
        dtype = self.context.dtypes[store.tensor]
        offset = scope.offset_text(scope.offset(store.offset))
        if dtype.is_float:
            scope.need("scalars_f16" if dtype is Dtype.F16 else "scalars")
            pointer = store.tensor if offset == "0" else f"{store.tensor} + {offset}"
            space = self.context.dialect.space
            return f"{space}::put({pointer}, {scope.as_float(value).text});"
        value = scope.as_bool(value) if dtype is Dtype.BOOL else scope.as_int(value, 64)
        return f"{store.tensor}[{offset}] = ({dtype.c_type})({value.text});"
