"""SIGTERM stops a run as Ctrl-C does, and only while one is on."""

from __future__ import annotations

import signal
import threading

import pytest

from deblend_batch.engine.driver.signals import stop_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_an_interrupt(number: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), stop_signals():
        signal.raise_signal(number)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_thread_leaves_the_handlers_alone() -> None:
    """Python takes signals in its main thread only, and a library may run there for somebody else."""
    seen = []

    def look() -> None:
        with stop_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]
