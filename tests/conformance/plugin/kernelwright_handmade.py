"""A proposer with one kernel, a strategy that takes the largest values first, a builder."""

from dataclasses import replace

from kernelwright.build import CppBuilder
from kernelwright.model import Family, FrozenMap, Lineage
from kernelwright.search import Request, SeededStrategy

KERNEL = """
#include <cmath>
#include <cstdint>
// @tune CHUNK = 1, 4, 16

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H,
                      const void*, void*, int64_t, void*) {
#pragma omp parallel for schedule(static, CHUNK)
    for (int64_t t = 0; t < T; ++t) {
        double squares = 0;
        for (int64_t h = 0; h < H; ++h) squares += double(x[t * H + h]) * x[t * H + h];
        const float mean = float(squares / H);
        for (int64_t h = 0; h < H; ++h)
            out[t * H + h] = x[t * H + h] / (1.0f + std::exp(-w[h])) * mean;
    }
    return 0;
}
"""


class HandmadeProposer:
    name = "handmade"
    cost = "nothing"

    def propose(self, view, parents, evidence, count):
        return (Family("by hand", "cpp", "kernel", KERNEL, Lineage("handmade")),)


class LargestFirst(SeededStrategy):
    name = "largest-first"

    def proposals(self, current):
        for family in current.view.families:
            for values in sorted(family.space.enumerate(), key=lambda v: -v["CHUNK"]):
                yield Request(family.identity, values)


class BasicBuilder:
    """A language of one program, `10 PRINT`, which means the kernel above."""

    def __init__(self, toolchains, cache):
        self._cpp = CppBuilder(toolchains, cache)

    def available(self):
        return self._cpp.available()

    def supports(self, candidate):
        return None if candidate.source.startswith("10 PRINT") else "it does not print"

    def build(self, candidate):
        source = KERNEL.replace("double squares", f"/* {candidate.source} */ double squares")
        values = FrozenMap({"CHUNK": 1})
        cpp = replace(candidate, language="cpp", source=source, tunables=values)
        return replace(self._cpp.build(cpp), language="basic", candidate=candidate.identity)

    def build_many(self, candidates):
        return {candidate.identity: self.build(candidate) for candidate in candidates}

    def host(self, artifact, signature, dtype):
        return self._cpp.host(artifact, signature, dtype)
