"""Typed arguments from words, by tyro; the help ends with the examples of the command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import tyro

Arguments = TypeVar("Arguments")


def parse_arguments(
    arguments: type[Arguments],
    args: Sequence[str],
    *,
    command: str,
    examples: Sequence[str],
    default: Arguments | None = None,
) -> Arguments:
    """Make `arguments`, a dataclass, from words; its docstring is the description, its fields' docstrings the help.

    Args:
        arguments: the dataclass.
        args: the words after the command.
        command: the command as it is typed, without the name of the program.
        examples: lines to end the help with.
        default: values of the fields that are not given; by default those of the dataclass.

    Raises:
        SystemExit: 0 after printing help, 2 after printing what is wrong.
    """
    try:
        return tyro.cli(
            arguments,
            prog=f"relational-rnn {command}",
            args=list(args),
            default=tyro.MISSING_NONPROP if default is None else default,
            config=(tyro.conf.HelptextFromCommentsOff,),
        )
    except SystemExit as stop:
        if stop.code == 0 and {"-h", "--help"} & set(args):
            print("\n" + ("example:" if len(examples) == 1 else "examples:"))
            print("\n".join(f"  {example}" for example in examples))
        raise


def spell_out(args: Sequence[str], short: Mapping[str, str]) -> list[str]:
    """Words with the short options replaced by the ones behind them.

    >>> spell_out(["--data", "babi.tar.gz", "--data=x", "--data.language", "en"], {"--data": "--data.path"})
    ['--data.path', 'babi.tar.gz', '--data.path=x', '--data.language', 'en']
    """
    names = [word.split("=", 1)[0] for word in args]
    return [short.get(name, name) + word[len(name) :] for name, word in zip(names, args, strict=True)]
