"""Progress on standard error: a live line in a terminal, plain lines elsewhere."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Self, TextIO

if TYPE_CHECKING:
    from kernelwright.campaign import CampaignStatus, Progress


def describe(status: "CampaignStatus") -> str:
    """A status in one line."""
    from kernelwright.report import text

    parts = [f"{status.evaluations}/{status.budget.evaluations} judged"]
    if status.best_us is not None:
        parts.append(f"best {text.duration(status.best_us)}")
    if status.best_speedup is not None:
        parts.append(f"{status.best_speedup:.2f}x {status.best_baseline}")
    if status.fraction_of_bound is not None:
        parts.append(f"{text.percent(status.fraction_of_bound)} of bound")
    if status.rejected:
        counts = ", ".join(f"{stage} {count}" for stage, count in status.rejected.items())
        parts.append(f"rejected: {counts}")
    parts.append(f"{status.seconds_left:.0f} s left")
    return "  ".join(parts)


class PlainProgress:
    """Lines for logs and pipes; statuses at most every few seconds."""

    def __init__(self, stream: TextIO, every_s: float = 5.0) -> None:
        self._stream = stream
        self._every_s = every_s
        self._last = float("-inf")

    def stage(self, text: str) -> None:
        """A line."""
        self._print(f"{text} ...")

    def update(self, status: "CampaignStatus") -> None:
        """A line, unless the last one was a moment ago."""
        if time.monotonic() - self._last >= self._every_s:
            self._last = time.monotonic()
            self._print(f"  {describe(status)}")

    def note(self, text: str) -> None:
        """An indented line."""
        self._print(f"  {text}")

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class LiveProgress:
    """A bar that fills with the evaluations, the status beside it, notes above."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            console=Console(stderr=True, highlight=False),
            transient=True,
            refresh_per_second=4,  # more would disturb what is being timed
        )
        self._task = self._bar.add_task("starting", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.stop()

    def stage(self, text: str) -> None:
        """Name the phase beside a bar without an end."""
        self._bar.update(self._task, description=text, total=None)

    def update(self, status: "CampaignStatus") -> None:
        """Fill the bar."""
        self._bar.update(
            self._task,
            description=describe(status),
            total=status.budget.evaluations,
            completed=status.evaluations,
        )

    def note(self, text: str) -> None:
        """A line above the bar."""
        self._bar.console.print(text, markup=False, style="dim")


class Interruptible:
    """Progress that says again that the user wants to stop, should it have been said in vain.

    Python raises KeyboardInterrupt wherever it happens to be; where that is a finaliser, nobody
    ever sees it, and the work goes on.
    """

    def __init__(self, shown: "Progress") -> None:
        self._shown = shown
        self._asked = False

    @contextmanager
    def listening(self) -> Iterator[Self]:
        """As long as this lasts, SIGINT is remembered; only in the main thread."""
        before = signal.signal(signal.SIGINT, self._interrupt)
        try:
            yield self
        finally:
            signal.signal(signal.SIGINT, before)

    def stage(self, text: str) -> None:
        """Pass it on."""
        self._check()
        self._shown.stage(text)

    def update(self, status: "CampaignStatus") -> None:
        """Pass it on."""
        self._check()
        self._shown.update(status)

    def note(self, text: str) -> None:
        """Pass it on."""
        self._check()
        self._shown.note(text)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._asked = True
        raise KeyboardInterrupt

    def _check(self) -> None:
        if self._asked:
            self._asked = False
            raise KeyboardInterrupt


@contextmanager
def progress() -> Iterator["Progress"]:
    """Progress that suits standard error."""
    with ExitStack() as stack:
        live = sys.stderr.isatty()
        shown = stack.enter_context(LiveProgress()) if live else PlainProgress(sys.stderr)
        yield stack.enter_context(Interruptible(shown).listening())
