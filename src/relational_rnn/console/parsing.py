"""Typed arguments from words, by tyro; the help is as wide as the terminal and ends with the command's examples."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TextIO, TypeVar

import tyro

from relational_rnn.console.tables import terminal_width

Arguments = TypeVar("Arguments")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Command:
    """A command with the name that is typed, from a module with `Arguments` (a dataclass), `EXAMPLES` and
    `run(arguments)`."""

    def __init__(self, name: str, module: Any) -> None:
        self.name = name
        self.EXAMPLES: Sequence[str] = module.EXAMPLES
        self.run: Callable[[Any], None] = module.run
        self._arguments = module.Arguments

    def parse(self, args: Sequence[str]) -> Any:
        """The typed arguments; prints help or the mistake and exits where that is due."""
        return parse_arguments(self._arguments, args, command=self.name, examples=self.EXAMPLES)


def parse_arguments(
    arguments: type[Arguments],
    args: Sequence[str],
    *,
    command: str,
    examples: Sequence[str],
    default: Arguments | None = None,
    further: Sequence[str] = (),
) -> Arguments:
    """Make `arguments`, a dataclass, from words; its docstring is the description, its fields' docstrings the help.

    The help names `further` groups of options, which --help-all prints.
    """
    asked = {"-h", "--help"} & set(args)
    printed = _Printed(sys.stdout)
    try:
        with _wide_enough(), contextlib.redirect_stdout(printed) if asked else contextlib.nullcontext():
            return tyro.cli(
                arguments,
                prog=f"relational-rnn {command}",
                args=list(args),
                default=tyro.MISSING_NONPROP if default is None else default,
                config=(tyro.conf.HelptextFromCommentsOff,),
            )
    except SystemExit as stop:
        if stop.code == 0 and asked:
            width = terminal_width()
            text = printed.getvalue().rstrip("\n")
            if further:
                names = ", ".join(f"--{name}.*" for name in further)
                text += f"\n\nFurther options are {names}: `relational-rnn {command} --help-all` lists them."
            print("\n\n".join(_wrapped(block, width) for block in text.split("\n\n")))
            print("\n" + ("example:" if len(examples) == 1 else "examples:"))
            print("\n".join(wrap_command(example, width) for example in examples))
        raise


@contextlib.contextmanager
def _wide_enough() -> Iterator[None]:
    """Within it tyro finds `terminal_width` columns: in one or two it would draw for ever."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(terminal_width())
    try:
        yield
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before


class _Printed(io.StringIO):
    """What tyro prints, drawn as for the stream that it will go to."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding or "ascii"

    def isatty(self) -> bool:
        return self._stream.isatty()


def _wrapped(block: str, width: int) -> str:
    """A paragraph of a description, or the usage; tyro has wrapped what stands in its boxes."""
    if block.startswith((" ", "\u256d", "\x1b[2m\u256d")):
        return block
    # An option and its value stay together.
    whole = re.sub(r"\[[^\[\]]*\]", lambda option: option[0].replace(" ", "\xa0"), " ".join(block.split()))
    indent = "  " if _COLOUR.sub("", block).startswith("usage") else ""
    filled = textwrap.fill(whole, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return filled.replace("\xa0", " ")


def wrap_command(line: str, width: int) -> str:
    """A line for a shell, indented and wrapped so that it can still be pasted.

    >>> print(wrap_command("relational-rnn inspect --text 'Mary left. Where is she?'", 44))
      relational-rnn inspect --text \\
          'Mary left. Where is she?'
    """
    lines = ["  "]
    for word in re.findall(r"""(?:[^\s'"]|'[^']*'|"[^"]*")+""", line):
        if lines[-1].strip() and len(lines[-1]) + len(word) + 2 > width:  # room for the backslash
            lines[-1] += "\\"
            lines.append("      ")
        lines[-1] += word + " "
    return "\n".join(each.rstrip() for each in lines)


def spell_out(args: Sequence[str], short: Mapping[str, str]) -> list[str]:
    """Words with the short options replaced by the ones behind them.

    >>> spell_out(["--data", "a.txt", "--data=x", "--data.seed", "1"], {"--data": "--data.path"})
    ['--data.path', 'a.txt', '--data.path=x', '--data.seed', '1']
    """
    names = [word.split("=", 1)[0] for word in args]
    return [short.get(name, name) + word[len(name) :] for name, word in zip(names, args, strict=True)]
