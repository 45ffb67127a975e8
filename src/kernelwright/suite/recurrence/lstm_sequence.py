"""A long short-term memory over a sequence, its recurrent matrix block-diagonal by heads."""

import torch
from jaxtyping import Float
from torch import Tensor

from kernelwright.problems import Cost, problem


@problem(
    scenario="recurrence",
    dtypes=("bf16", "f32"),
    sizes={
        "cpu": [dict(T=128, B=4, H=4, D=32)],
        "gpu": [dict(T=2048, B=16, H=12, D=64)],
    },
    ranges=dict(T=(1, 2048), B=(1, 64), H=(1, 16), D=(1, 128)),
    distributions=("normal",),
    outputs=("hidden", "cell"),
    static=("r", "bias"),
    work="T*(B*H*D*D//4+512)",
    source="FlashRNN; Long Short-Term Memory (Hochreiter and Schmidhuber, 1997)",
)
def lstm_sequence(
    a: Float[Tensor, "T B 4 H D"], r: Float[Tensor, "H D 4*D"], bias: Float[Tensor, "4 H D"]
) -> tuple[Float[Tensor, "T B H D"], Float[Tensor, "B H D"]]:
    """Every hidden state and the last cell; a holds the inputs' share of the gates i, f, g, o."""
    return recurrence(a, r, bias)


def recurrence(a, r, bias):
    """Step by step; a compiler, which would unroll thousands of steps, leaves it alone."""
    hidden = torch.zeros_like(a[0, :, 0])
    cell, found = hidden, []
    for gates in a + bias:
        if torch.compiler.is_compiling():
            torch._dynamo.graph_break()
        carried = torch.einsum("bhd,hde->bhe", hidden, r).unflatten(-1, (4, -1))
        i, f, g, o = (gates + carried.permute(0, 2, 1, 3)).unbind(1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        hidden = torch.sigmoid(o) * torch.tanh(cell)
        found.append(hidden)
    return torch.stack(found), cell


@lstm_sequence.cost
def cost(sizes, dtype):
    """Each tensor once; a multiply-add for each weight, row and step, 24 operations a cell."""
    T, B, H, D = (sizes[name] for name in "TBHD")
    weights = (4 * H * D * D + 4 * H * D) * dtype.itemsize
    cells = B * H * D
    read, written = 4 * T * cells * dtype.itemsize, (T + 1) * cells * dtype.itemsize
    return Cost(read + weights, written, T * cells * (8 * D + 24))


def drawn(sizes, generator, scale=0.5):
    """Inputs with a recurrent matrix that neither dies out nor runs wild."""
    T, B, H, D = (sizes[name] for name in "TBHD")
    return {
        "a": torch.randn((T, B, 4, H, D), generator=generator),
        "r": torch.randn((H, D, 4 * D), generator=generator) * scale / D**0.5,
        "bias": torch.randn((4, H, D), generator=generator) * 0.5,
    }


@lstm_sequence.inputs("normal")
def ordinary(sizes, scalars, generator):
    return drawn(sizes, generator)


@lstm_sequence.inputs("saturated")
def saturated(sizes, scalars, generator):
    """Gates far from their middle: most are open or shut."""
    found = drawn(sizes, generator)
    return {**found, "a": 8 * found["a"]}


@lstm_sequence.inputs("remembering")
def remembering(sizes, scalars, generator):
    """Forget gates nearly open: cells add up over the whole sequence."""
    found = drawn(sizes, generator, 0.25)
    found["bias"][1] += 6
    found["bias"][0] -= 2
    return found


@lstm_sequence.inputs("strong recurrence")
def strong(sizes, scalars, generator):
    """What is carried over weighs more than the inputs."""
    found = drawn(sizes, generator, 1.0)
    return {**found, "a": 0.25 * found["a"]}


def dense(r, bias):
    """Weights of a dense layer: its input passes unchanged, heads are blocks of the recurrence."""
    H, D = r.shape[:2]
    blocks = [torch.block_diag(*r.unflatten(-1, (4, D))[:, :, gate].mT) for gate in range(4)]
    through = torch.eye(4 * H * D, dtype=r.dtype, device=r.device)
    return {"r": (through, torch.cat(blocks)), "bias": bias.flatten()}


@lstm_sequence.terms
def terms(a, r, bias):
    """A cell is a sum of what came in, weighted by gates; a hidden state moves at most so."""
    hidden, _ = recurrence(a, r, bias)
    before = torch.cat((torch.zeros_like(hidden[:1]), hidden[:-1]))
    carried = torch.einsum("tbhd,hde->tbhe", before, r).unflatten(-1, (4, -1))
    i, f, g, o = (a + bias + carried.permute(0, 1, 3, 2, 4)).unbind(2)
    total, found = torch.zeros_like(hidden[0]), []
    for kept, added, shown in zip(f, torch.sigmoid(i) * torch.tanh(g).abs(), o, strict=True):
        total = torch.sigmoid(kept) * total + added
        found.append(torch.sigmoid(shown) * total)
    return torch.stack(found), total


@lstm_sequence.peer("torch.lstm, dense", prepare=dense)
def library(a, r, bias):
    through, carried = r
    H, D = a.shape[3:]
    start = torch.zeros((1, a.shape[1], H * D), dtype=a.dtype, device=a.device)
    weights = [through, carried, bias, torch.zeros_like(bias)]
    hidden, _, cell = torch.lstm(
        a.flatten(2), (start, start), weights, True, 1, 0.0, False, False, False
    )
    return hidden.unflatten(-1, (H, D)), cell[0].unflatten(-1, (H, D))


@lstm_sequence.trivial("nothing is carried over")
def memoryless(a, r, bias):
    return recurrence(a, 0 * r, bias)


@lstm_sequence.trivial("every head has the first one's weights")
def one_head(a, r, bias):
    if r.shape[0] == 1:
        return recurrence(a, r, 0 * bias)
    return recurrence(a, r[:1].expand_as(r), bias)


@lstm_sequence.trivial("the cell is kept whole")
def never_forgets(a, r, bias):
    open_gate = torch.zeros_like(bias)
    open_gate[1] = 40
    return recurrence(a, r, bias + open_gate)
