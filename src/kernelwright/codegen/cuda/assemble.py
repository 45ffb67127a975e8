"""Puts CUDA sources together: tunables, includes, blocks, kernels, workspace, entry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kernelwright.codegen.assemble import Tunables, block_file, indent
from kernelwright.codegen.emit import Context
from kernelwright.codegen.library import paste
from kernelwright.model import Signature

INCLUDES = """\
#include "kernelwright.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>"""


@dataclass(frozen=True)
class Region:
    """A part of the workspace."""

    name: str
    c_type: str
    bytes: str
    """A C expression of dimensions and scalars."""


@dataclass(frozen=True)
class Source:
    """What every CUDA source has around its kernels."""

    signature: Signature
    """Of the entry: what the caller passes."""
    context: Context
    tunables: Tunables
    entry: str
    title: str

    def text(
        self,
        formula: str,
        kernels: Iterable[str],
        body: Iterable[str],
        regions: Sequence[Region] = (),
        files: Iterable[Path] = (),
        fixed: Iterable[str] = (),
    ) -> str:
        """The whole source.

        Args:
            formula: the mathematics, for readers.
            kernels: definitions in front of the entry.
            body: statements of the entry, which return an error code where something fails.
            regions: what the workspace holds; pointers of their names are there in the body.
            files: blocks that are pasted as they are, in front of the kernels.
            fixed: preprocessor lines in front of everything.
        """
        space = self.context.dialect.space
        lines = [f"// {self.title}, {self.context.dtype} workloads:", "//"]
        lines += [f"//     {line}" for line in formula.splitlines()]
        lines += ["//", self.tunables.declarations(), "", *fixed, INCLUDES, ""]
        if self.context.blocks:
            lines += [paste(self.context.blocks, space), ""]
        for file in files:
            lines += [block_file(file), ""]
        lines += [*kernels, *self._workspace(regions)]
        lines.append(f'extern "C" {self.signature.prototype(self.entry, self.context.dtype)} {{')
        lines += indent(["(void)prepared, (void)stream;", *self._regions(regions), *body])
        lines += ["    return 0;", "}"]
        return "\n".join(lines) + "\n"

    @property
    def numbers(self) -> list[str]:
        """Names of dimensions and scalars."""
        return [*self.signature.dimensions, *(s.name for s in self.signature.scalars)]

    def _workspace(self, regions: Sequence[Region]) -> list[str]:
        if not regions:
            return []
        return [
            f'extern "C" {self.signature.workspace_prototype(self.entry)} {{',
            *(f"    (void){name};" for name in self.numbers),
            "    int64_t bytes = 0;",
            *(f"    bytes += ({region.bytes} + 255) / 256 * 256;" for region in regions),
            "    return bytes;",
            "}", "",
        ]  # fmt: skip

    def _regions(self, regions: Sequence[Region]) -> list[str]:
        if not regions:
            return ["(void)workspace, (void)workspace_bytes;"]
        lines = [
            f"if (workspace_bytes < {self.entry}_workspace({', '.join(self.numbers)}))",
            "    return (int)cudaErrorInvalidValue;",
            "char* next = (char*)workspace;",
        ]
        for region in regions:
            lines += [f"{region.c_type}* {region.name} = ({region.c_type}*)next;",
                      f"next += ({region.bytes} + 255) / 256 * 256;"]  # fmt: skip
        return lines


def parameters_of(signature: Signature, context: Context, regions: Sequence[Region] = ()) -> str:
    """Parameters of a kernel that gets everything that the entry gets, and the workspace.

    Args:
        signature: of the entry.
        context: of the kernel.
        regions: parts of the workspace.
    """
    parts = [
        f"const {t.resolve(context.dtype).c_type}* __restrict__ {t.name}" for t in signature.inputs
    ]
    parts += [f"{t.resolve(context.dtype).c_type}* __restrict__ {t.name}"
              for t in signature.outputs]  # fmt: skip
    parts += [f"int64_t {name}" for name in signature.dimensions]
    parts += [f"{s.c_type} {s.name}" for s in signature.scalars]
    parts += [f"{region.c_type}* {region.name}" for region in regions]
    return ", ".join(parts)


def arguments_of(signature: Signature, regions: Sequence[Region] = ()) -> str:
    """What `parameters_of` is given."""
    names = [t.name for t in signature.tensors]
    names += [*signature.dimensions, *(s.name for s in signature.scalars)]
    return ", ".join([*names, *(region.name for region in regions)])
