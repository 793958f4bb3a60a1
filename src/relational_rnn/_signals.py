"""SIGTERM, by which schedulers ask a process to end, and Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

EXIT_CODE = 128 + signal.SIGTERM
"""What a shell says of a process that SIGTERM has ended."""


class Terminated(SystemExit):
    """SIGTERM asked this process to end. Its text may say what is kept; uncaught, it ends the process with 143.

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
    """Raise `Terminated`."""
    raise Terminated


def on_terminate(act: Callable[[], object]) -> contextlib.AbstractContextManager[None]:
    """SIGTERM calls `act` within, between two instructions of the main thread."""
    return _handled(signal.SIGTERM, lambda number, frame: act())


def interrupts_ignored() -> contextlib.AbstractContextManager[None]:
    """A process that is started within does not hear of Ctrl-C."""
    return _handled(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def _handled(number: signal.Signals, handler: Any) -> Iterator[None]:
    """Handle a signal within; nothing changes outside the main thread, which alone may change this."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, signal.SIG_DFL if before is None else before)
