"""Where exceptions become one sentence and an exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator

from relational_rnn._check import InputError, MissingExtraError
from relational_rnn._signals import EXIT_CODE, Terminated, end_now, on_terminate

MISTAKE, INTERRUPTED, PIPE_CLOSED = 2, 130, 141
OUT_OF_MEMORY = (
    "can't allocate memory",
    "Cannot allocate memory",
    "not enough memory",
    "bad_alloc",
    "can't start new thread",
    "failed to map segment from shared object",
)
"""What exceptions of libraries say where memory ran out, the last two because it is bounded (ulimit -v)."""


def guarded(command: Callable[[], None]) -> int:
    """Call `command` and return the exit code of the process.

    A mistake, an OSError and a lack of memory give 2 and one message on stderr, Ctrl-C 130, SIGTERM 143 (either may say
    how to go on), a closed pipe 141. Anything else is a bug and raised.
    """
    try:
        with on_terminate(end_now):
            command()
            sys.stdout.flush()
    except Terminated as stop:
        _say(f"terminated: {stop}" if str(stop) else "terminated")
        return EXIT_CODE
    except SystemExit as stop:  # a check does not hold (1), or the parser has printed help (0) or the mistake (2)
        if isinstance(stop.code, str):
            _say(f"error: {stop.code}")
            return MISTAKE
        return int(stop.code or 0)
    except (InputError, MissingExtraError) as error:
        _say(f"error: {error}")
        return MISTAKE
    except KeyboardInterrupt as stop:
        _say(f"interrupted: {stop}" if str(stop) else "interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes stdout once more when it ends; that must not complain a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except OSError as error:
        _say(f"error: {_sentence(error)}")
        return MISTAKE
    except (MemoryError, RuntimeError, ImportError) as error:
        if not out_of_memory(error):
            raise
        _say("error: this needs more memory than there is; give it smaller sizes, a smaller file or more memory")
        return MISTAKE
    return 0


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception, Python's or a library's, says that memory ran out.

    >>> out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory")), out_of_memory(RuntimeError("no"))
    (True, False)
    """
    said = any(phrase in str(error) for phrase in OUT_OF_MEMORY)
    return isinstance(error, MemoryError) or said or type(error).__name__ == "OutOfMemoryError"


KEPT = "what is done is kept; the same command goes on from there"


@contextlib.contextmanager
def stopped_with(sentence: str) -> Iterator[None]:
    """Give Ctrl-C and SIGTERM a sentence that says how to go on."""
    try:
        yield
    except (KeyboardInterrupt, Terminated) as stop:
        raise type(stop)(sentence) from stop


def _sentence(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}the disk is full; nothing was left half-written"
    return f"{where}{error.strerror or error}"


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
