"""Progress on standard error, and interrupts that get lost on the way."""

import io
import signal

import pytest

from kernelwright.cli.progress import Interruptible, PlainProgress


def test_an_interrupt_that_nobody_saw_is_raised_at_the_next_sign_of_progress():
    before, written = signal.getsignal(signal.SIGINT), io.StringIO()
    with Interruptible(PlainProgress(written)).listening() as told:
        told.stage("searching")
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)  # as if it had been lost in a finaliser
        with pytest.raises(KeyboardInterrupt):
            told.note("going on")
        told.note("said once more, not for ever")
    assert written.getvalue() == "searching ...\n  said once more, not for ever\n"
    assert signal.getsignal(signal.SIGINT) is before
