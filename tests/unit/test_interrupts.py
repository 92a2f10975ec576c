"""Ctrl-C finds the main thread anywhere, and leaves no lock taken."""

import _thread
import os
import signal
import threading
import time
from typing import Any

import pytest

from releasekit.cli.interrupts import orderly


class Struck:
    """A lock in whose taking, or giving back, Ctrl-C is pressed."""

    def __init__(self, when: str) -> None:
        self.lock = threading.Lock()
        self.when = when

    def strike(self, when: str) -> None:
        if self.when == when:
            self.when = ""
            os.kill(os.getpid(), signal.SIGINT)

    def acquire(self) -> bool:
        return self.lock.acquire()

    def release(self) -> None:
        self.lock.release()

    def __enter__(self) -> bool:
        self.lock.acquire()
        self.strike("taken")
        return True

    def __exit__(self, *_: object) -> None:
        self.strike("given back")
        self.lock.release()


@pytest.fixture(autouse=True)
def _main_thread() -> None:
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals come to the main thread alone")


def use(lock: Any) -> None:
    """Takes a condition's lock, gives it back, and goes on for a while."""
    with threading.Condition(lock):
        pass
    for _ in range(5000):
        time.sleep(0.001)


@pytest.mark.parametrize("when", ["taken", "given back"])
def test_a_lock_is_given_back_before_the_interruption(when: str) -> None:
    lock = Struck(when)
    with orderly(), pytest.raises(KeyboardInterrupt):
        use(lock)
    assert not lock.lock.locked()


@pytest.mark.parametrize("when", ["taken", "given back"])
def test_else_it_would_stay_taken(when: str) -> None:
    lock = Struck(when)
    with pytest.raises(KeyboardInterrupt):
        use(lock)
    assert lock.lock.locked()


def test_who_waits_is_interrupted_where_he_waits() -> None:
    condition = threading.Condition()

    def press() -> None:
        time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    began = time.monotonic()
    _thread.start_new_thread(press, ())
    with orderly(), pytest.raises(KeyboardInterrupt), condition:
        condition.wait(30)
    assert time.monotonic() - began < 20
    assert condition.acquire(blocking=False)


def test_elsewhere_it_comes_at_once() -> None:
    with orderly(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_what_else_was_to_come_of_it_still_does() -> None:
    """Such as nothing, for what `nohup` or a shell starts in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with orderly():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    with orderly():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
