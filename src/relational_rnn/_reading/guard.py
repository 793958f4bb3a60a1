"""Whatever a library raises over damaged bytes, as one sentence."""

from __future__ import annotations

import contextlib
import reprlib
from collections.abc import Iterator

from relational_rnn._check import InputError, MissingExtraError, describe

MOST_SHOWN = 200
"""Characters of a library's own message that are worth reading."""


@contextlib.contextmanager
def damaged(where: object, problem: str, *, expected: str | None = None, hint: str | None = None) -> Iterator[None]:
    """Everything that is raised within becomes an `InputError`: only the call of a library belongs here.

    No list of exceptions would be whole: what a parser trips over depends on which byte was flipped.

    >>> with damaged("notes.zip", "cannot be read"):
    ...     raise NotImplementedError("That compression method is not supported")
    Traceback (most recent call last):
    ...
    relational_rnn._check.InputError: notes.zip: cannot be read
      got       That compression method is not supported
    """
    try:
        yield
    except (InputError, MissingExtraError):
        raise
    except BaseException as error:
        # a panic of a library in Rust is no Exception, and has no public name
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(describe(where, problem, got=reason(error), expected=expected, hint=hint)) from error


def reason(error: BaseException) -> str:
    """What an exception says, in one line.

    >>> reason(RecursionError("maximum recursion depth exceeded")), reason(KeyError("size")), reason(EOFError())
    ('it is nested too deeply', "KeyError: 'size'", 'EOFError')
    """
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    line = next(iter(str(error).strip().splitlines()), "")[:MOST_SHOWN]
    plain = line and not isinstance(error, KeyError | IndexError | TypeError | AttributeError)
    return line if plain else ": ".join(part for part in (type(error).__name__, line) if part)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


def shown(value: object) -> str:
    """`value` for a message, cut short."""
    return _SHORT.repr(value)
