"""SIGTERM, by which schedulers ask a process to end, and Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

EXIT_CODE = 128 + signal.SIGTERM
"""What a shell says of a process that SIGTERM has ended."""


class Terminated(SystemExit):
    """This process was asked to end by SIGTERM. Its text may say what is kept; uncaught, it ends the process with 143.

    >>> stop = Terminated("runs/a: stopped")
    >>> str(stop), stop.code
    ('runs/a: stopped', 143)
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(EXIT_CODE)
        self.message = message

    def __str__(self) -> str:
        return self.message


def end_now() -> NoReturn:
    """End where the process stands.

    Raises:
        Terminated: always.
    """
    raise Terminated


@contextlib.contextmanager
def on_terminate(act: Callable[[], object]) -> Iterator[None]:
    """SIGTERM calls `act` within, between two instructions of the main thread; in another thread nothing is changed."""
    if threading.current_thread() is not threading.main_thread():  # only there can it be changed
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda number, frame: act())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


@contextlib.contextmanager
def interrupts_ignored() -> Iterator[None]:
    """A process that is started within is not told of Ctrl-C; in another than the main thread it is."""
    if threading.current_thread() is not threading.main_thread():  # only there can it be changed
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
