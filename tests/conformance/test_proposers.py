from dataclasses import replace
from functools import lru_cache

from kernelwright.model import Dtype, FrozenMap, Signature, TensorArgument, Toolchain
from kernelwright.problems.trace import trace
from kernelwright.propose import GenerateProposer, OwnKernelProposer, ProblemView
from kernelwright.testing import samples
from kernelwright.testing.proposers import ProposerConformance, ScriptedProposer


def row_softmax(x):
    return (x - x.amax(-1, keepdim=True)).exp() / (x - x.amax(-1, keepdim=True)).exp().sum(
        -1, keepdim=True
    )


@lru_cache(maxsize=1)
def rowwise_views():
    rows, columns = TensorArgument("x", ("T", "H")), TensorArgument("out", ("T", "H"))
    signature = Signature((rows,), (columns,))
    program = trace(row_softmax, signature, {"T": (1, 4096), "H": (1, 4096)})
    sizes = FrozenMap({"T": 256, "H": 1000})
    return tuple(
        ProblemView(signature, program, dtype, sizes, samples.machine())
        for dtype in (Dtype.F32, Dtype.BF16)
    )


def untraced_view():
    problem = samples.problem()
    sizes = FrozenMap({"N": 1000})
    compilers = tuple(Toolchain(n, f"/usr/bin/{n}", "1", "libomp", 2) for n in ("g++", "clang++"))
    machine = replace(samples.machine(), toolchains=compilers)
    return ProblemView(problem.signature, None, Dtype.F32, sizes, machine)


class TestGenerate(ProposerConformance):
    def make(self):
        return GenerateProposer()

    def views(self):
        return rowwise_views()


class TestOwnKernel(ProposerConformance):
    def make(self):
        return OwnKernelProposer(samples.family())

    def views(self):
        return (untraced_view(),)


class TestScripted(ProposerConformance):
    def make(self):
        return ScriptedProposer([samples.family()])

    def views(self):
        return (untraced_view(),)


def test_outside_of_the_expression_form_nothing_is_generated():
    assert GenerateProposer().propose(untraced_view(), (), (), 10) == ()
