"""relational-rnn ask"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from relational_rnn._check import InputError, describe
from relational_rnn._reading.plain import read_text
from relational_rnn.runs import load
from relational_rnn.tasks.babi.answering import Influence, StoryReader, influence, reader_of
from relational_rnn.tasks.babi.pretrained import pretrained_babi

EXAMPLES = (
    "relational-rnn ask",
    "relational-rnn ask runs/demo/rmc-0",
    "printf 'Mary went to the kitchen.\\nWhere is Mary?\\n' | relational-rnn ask runs/demo/rmc-0",
)
INTRODUCTION = (
    "Type a story, one sentence a line, then a question that ends with '?'. "
    "After an empty line a new story begins. 'help' says more, Ctrl-D ends."
)
HELP = """A line that ends with '?' is a question about the story so far; every other line is its next sentence:

  Mary went to the kitchen.
  John went to the garden.
  Where is Mary?

After an empty line a new story begins. 'help' shows this text, Ctrl-D or Ctrl-C ends.
"""
BEGINS_A_QUESTION = re.compile(
    r"(where|what|who|whose|whom|which|when|why|how|is|are|was|were|do|does|did|can|could|has|have|had|will|would)\s",
    re.IGNORECASE,
)
"""How a line begins that is a question, or was meant to be one; no statement of the tasks does."""
LEAST = 0.01
"""A sentence whose absence moves the answer's probability by less is not listed."""
# A line of the published files: a number, the text, and for a question its answer behind a tab.
_PUBLISHED = re.compile(r"(\d{1,9}) ([^\t]+)(?:\t([^\t]*)(?:\t[\d ]*)?)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """Type a story line by line, then questions about it: prints the answer with its probability, the runner-up, and
    which sentences the answer rests on, found by leaving each of them out.

    Lines come from the keyboard or from a pipe. A line that ends with '?' is a question, every other line a statement;
    after an empty line a new story begins, and the line "help" says so again. Lines of the published bAbI files are
    understood too.
    """

    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]")] = None
    """Folder of a trained run on bAbI; without it, the model that comes with the package answers."""
    story: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Read these lines first, as if they had been typed."""


def run(arguments: Arguments) -> None:
    first = read_text(arguments.story).splitlines() if arguments.story else []
    loaded = load(arguments.run or pretrained_babi(), "babi")
    limit = loaded.config.data.max_sentences
    if limit is not None:
        print(f"note: this run reads only the last {limit} sentences before a question", file=sys.stderr)
    conversation = Conversation(reader_of(loaded))
    for line in first:
        conversation.hear(line)
    if sys.stdin.isatty():
        _talk(conversation)
        return
    with _text():
        for line in sys.stdin:
            conversation.hear(line)
    if not conversation.asked:
        raise InputError(describe("ask", "no question was asked", hint="a line that ends with '?' is a question"))


class LikeAQuestion(InputError):
    """A line that begins like a question and ends like a statement."""


class Conversation:
    """The story so far; answers are printed as soon as a question is heard."""

    def __init__(self, reader: StoryReader) -> None:
        self.asked = 0
        self._reader = reader
        self._story: list[str] = []
        self._over = False

    def hear(self, line: str, *, statement: bool = False) -> None:
        """Take one line; with `statement` it is one, however it begins.

        Raises:
            LikeAQuestion: it begins like a question and does not end with '?'.
            InputError: an unknown word, or a question before any statement; the story stays as it was.
        """
        if line.strip().lower() in ("help", "help?", "?"):
            print(HELP)
            return
        text, expected = line.strip(), None
        published = _PUBLISHED.fullmatch(text)
        if published:
            number, text, expected = published.groups()
            text = text.strip()
            self._over = self._over or int(number) == 1
        if not text:
            self._over = True
        elif text.endswith("?"):
            self._answer(text, expected)
        elif BEGINS_A_QUESTION.match(text) and not (published or statement):
            problem, hint = "was this line meant as a question?", "a question ends with '?'"
            raise LikeAQuestion(describe("ask", problem, got=repr(text), hint=hint))
        else:
            self._reader.vocabulary.encode(text, where="ask")
            if self._over:
                self._story.clear()
                self._over = False
            self._story.append(text)

    def _answer(self, question: str, expected: str | None) -> None:
        if not self._story:
            problem = "a question before any statement"
            raise InputError(describe("ask", problem, got=repr(question), hint="tell a story first"))
        found = influence(self._reader.together, self._story, question)
        self.asked += 1
        print(question)
        print(describe_answer(found, expected))
        sys.stdout.flush()


def describe_answer(found: Influence, expected: str | None = None) -> str:
    """The answer, the runner-up, and the sentences that mattered, as indented lines."""
    line = f"  {found.answer}  {found.probability:.1%}"
    if found.runner_up is not None:
        line += f"    next: {found.runner_up}  {found.runner_up_probability:.1%}"
    if expected is not None:
        line += f"    right answer: {expected}"
    effects = found.strongest(LEAST)
    if not effects:
        return f"{line}\n  no sentence alone changes that by {100 * LEAST:g} point or more"
    width = max(len(effect.sentence) for effect in effects)
    lines = [line, f"  without a sentence, the probability of {found.answer!r} changes by"]
    for effect in effects:
        then = f"  the answer is then {effect.answer_without}" if effect.answer_without != found.answer else ""
        change = f"{-100 * effect.drop:+7.1f} points  {effect.index + 1:>3}"
        lines.append(f"  {change}  {effect.sentence:<{width}}{then}".rstrip())
    return "\n".join(lines)


def _talk(conversation: Conversation) -> None:
    """Read lines from the keyboard until end of file; a line that cannot be used is explained and forgotten."""
    print(INTRODUCTION)
    while True:
        try:
            with _text():
                line = input("> ")
        except EOFError:
            print()
            return
        try:
            _hear(conversation, line)
        except InputError as error:
            print(f"{error}\n(this line is ignored)")


def _hear(conversation: Conversation, line: str) -> None:
    """Take a line from the keyboard; of one that begins like a question, ask whether it is one."""
    try:
        conversation.hear(line)
    except LikeAQuestion as doubt:
        try:
            reply = input(f"Was {line.strip()!r} meant as a question? [y/n] ").strip().lower()
        except EOFError:
            reply = ""
        if reply not in ("y", "yes", "n", "no"):
            raise InputError(describe("ask", "neither a question nor a sentence of the story")) from doubt
        if reply[0] == "y":
            conversation.hear(line.rstrip(" .!\n") + "?")
        else:
            conversation.hear(line, statement=True)


@contextlib.contextmanager
def _text() -> Iterator[None]:
    """What is typed or piped in is text."""
    try:
        yield
    except UnicodeDecodeError as error:
        got = repr(error.object[error.start : error.end])
        raise InputError(describe("ask", f"this is not {error.encoding.upper()} text", got=got)) from error
