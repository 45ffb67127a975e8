"""The Python API: the command line's verbs as functions."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from kernelwright import campaign, suite
from kernelwright.llm import Limits
from kernelwright.model import Dtype, FrozenMap, language_target
from kernelwright.problems import ProblemReference, parse_reference
from kernelwright.propose import own_kernel_family
from kernelwright.store import Archive

if TYPE_CHECKING:
    from kernelwright.problems import Problem

Target = str | Callable[..., Any] | ProblemReference


def optimize(
    target: Target,
    example_inputs: Sequence[Any] | Mapping[str, Any] | None = None,
    *,
    dtype: str | None = None,
    sizes: Mapping[str, int] | None = None,
    evaluations: int = 60,
    minutes: float = 5.0,
    strategy: str = "default",
    proposers: Sequence[str] = ("recipes", "generate"),
    own: Sequence[str | Path] = (),
    models: Sequence[str] = (),
    max_dollars: float | None = None,
    max_tokens: int | None = None,
    run: str | Path | None = None,
    seed: int = 0,
    progress: campaign.Progress | None = None,
) -> dict[str, Any]:
    """Search for a verified kernel.

    Args:
        target: a shipped problem's name, `file.py` or `file.py:function`, or a function on tensors.
        example_inputs: for a function: tensors and scalars by position or name; their shapes
            become the bench sizes.
        dtype: `f32`, `bf16`, ...; None: the first that the problem declares.
        sizes: bench sizes by dimension name; None: the problem's first.
        evaluations: most candidates to judge.
        minutes: longest search; acceptance comes on top.
        strategy: name of a search strategy.
        proposers: names of proposers, in order.
        own: your own kernels under the ABI: first candidates, and baselines of the result.
        models: language models as `PROVIDER:NAME`, for `refine`, `population` and `tree`.
        max_dollars: most that the models may cost.
        max_tokens: most tokens that they may take.
        run: the run folder (resumed when it exists); None: a new temporary one.
        seed: of the search.
        progress: told what happens.

    Returns:
        What `kernelwright optimize --json` prints: winner, times, speed-ups, evidence.

    Raises:
        UserError: the problem, the machine or the run folder is not usable.
    """
    folder = Path(run) if run is not None else Path(mkdtemp(prefix="kernelwright-"))
    request = campaign.CampaignRequest(
        reference=refer(target, example_inputs, folder),
        folder=folder,
        dtype=Dtype(dtype) if dtype else None,
        sizes=FrozenMap(sizes) if sizes is not None else None,
        budget=campaign.Budget(evaluations, minutes),
        strategy=strategy,
        proposers=tuple(proposers),
        own=tuple(own_kernel_family(Path(path)) for path in own),
        models=tuple(models),
        limits=Limits(max_dollars, max_tokens),
        seed=seed,
    )
    return campaign.optimize(request, progress)


def evaluate(
    target: Target,
    kernel: str | Path,
    *,
    language: str | None = None,
    dtype: str | None = None,
    sizes: Mapping[str, int] | None = None,
    progress: campaign.Progress | None = None,
) -> dict[str, Any]:
    """Judge one kernel file; see `optimize` for the arguments.

    Returns:
        What `kernelwright evaluate --json` prints.

    Raises:
        UserError: the problem, the kernel file or the machine is not usable.
    """
    return campaign.evaluate(
        refer(target),
        own_kernel_family(Path(kernel), language),
        Dtype(dtype) if dtype else None,
        FrozenMap(sizes) if sizes is not None else None,
        progress=progress,
    )


def profile(
    target: Target,
    kernel: str | Path,
    *,
    language: str | None = None,
    dtype: str | None = None,
    sizes: Mapping[str, int] | None = None,
    progress: campaign.Progress | None = None,
) -> dict[str, Any]:
    """Say what limits one kernel file; see `optimize` for the arguments.

    Returns:
        What `kernelwright profile --json` prints.

    Raises:
        UserError: the problem, the kernel file or the machine is not usable.
    """
    family = own_kernel_family(Path(kernel), language)
    return campaign.profile(
        refer(target),
        family,
        Dtype(dtype) if dtype else None,
        FrozenMap(sizes) if sizes is not None else None,
        progress,
        target=language_target(family.language),
    )


def draft_problem(
    description: str,
    *,
    models: Sequence[str],
    kernel: str = "",
    repairs: int = 3,
    max_dollars: float | None = None,
    max_tokens: int | None = None,
    progress: campaign.Progress | None = None,
) -> dict[str, Any]:
    """Have a language model draft a problem file, and run the admission gate on it in a sandbox.

    Args:
        description: what is to be computed, in words.
        models: as `PROVIDER:NAME`.
        kernel: text of an existing kernel or reference.
        repairs: most corrections of what the gate refuses.
        max_dollars: most that the models may cost.
        max_tokens: most tokens that they may take.
        progress: told what happens.

    Returns:
        What `kernelwright new --json` prints: `source`, `gate`, ...; nothing is written.

    Raises:
        UserError: a model, or the sandbox, is not usable; or no draft came.
    """
    limits = Limits(max_dollars, max_tokens)
    request = campaign.DraftRequest(description, kernel, tuple(models), limits, repairs)
    return campaign.draft_problem(request, progress)


def load_problem(target: str) -> "Problem":
    """The problem of this name or file; imports torch.

    Raises:
        ProblemError: there is none, or it is not usable.
    """
    from kernelwright.problems import load_problem as load

    return load(refer(target))


def open_archive(folder: str | Path) -> Archive:
    """A run folder, for reading.

    Raises:
        ArchiveError: it is not one, or damaged, or of a newer version.
    """
    return Archive.open(Path(folder), read_only=True)


def refer(
    target: Target,
    example_inputs: Sequence[Any] | Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> ProblemReference:
    """Where a problem is: by shipped name, by file, or a function written into `folder`.

    Raises:
        ProblemError: there is no such problem, or a function came without example inputs.
    """
    if isinstance(target, ProblemReference):
        return target
    if isinstance(target, str):
        return suite.find(target) if target.isidentifier() else parse_reference(target)
    from kernelwright.problems import reference_from_callable

    return reference_from_callable(target, example_inputs or (), folder or Path(mkdtemp()))
