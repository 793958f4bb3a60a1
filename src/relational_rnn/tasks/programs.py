"""Learning to execute: read a short program character by character, then write what it prints (Zaremba and Sutskever
2014, arXiv 1410.4615; Santoro et al. 2018, A.2).

Shape legend: B programs, W cells of a row (see `characters`), T characters of the longest, K answers of the longest.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

import torch
from torch import Tensor

from relational_rnn._check import InputError, check_choice, check_positive, describe, is_number
from relational_rnn.nn.cores import MemorySizes
from relational_rnn.runs import Published
from relational_rnn.tasks.characters import Alphabet, close_gaps, constant, digit_cells, same_width
from relational_rnn.tasks.contract import Split, Task, TaskBatch, TaskShape
from relational_rnn.tasks.curriculum import Curriculum
from relational_rnn.tasks.generated import TaskRun, TaskWorkload, decoding, decoding_small

ProgramMode = Literal["add", "control", "program"]
CurriculumName = Literal["none", "naive", "mix", "combined"]
Modulus = Literal["length", "length+1", "none"]
OPERATIONS: dict[ProgramMode, tuple[str, ...]] = {
    "add": ("+",),
    "control": ("if", "for"),
    "program": ("+", "-", "*", "if", "for"),
}
"""What a level of nesting may be, in each mode; all of them are equally likely."""
CURRICULA: tuple[CurriculumName, ...] = ("none", "naive", "mix", "combined")
MODULI: tuple[Modulus, ...] = ("length", "length+1", "none")
CHARACTERS = Alphabet("0123456789abcdefghijklmnopqrstuvwxyz+-*=<>:() \n")
ANSWERS = Alphabet([*"0123456789-", "end"])
"""The classes of an answer are these tokens less 1."""
VARIABLES = [letter for letter in "abcdefghijklmnopqrstuvwyz"]  # x counts the rounds of loops
FACTOR = 4
"""Factors and numbers of rounds are at most this many times the length of literals."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Programs(Task):
    """Programs in Python, and what they print.

        mode     program                                                    answer
        add      print(384+907)                                 291 end       (1291 modulo 1000)
        control  j=(301 if 124<385 else 924)                    399 end       (1399 modulo 1000)
                 for x in range(6):j+=183
                 print(j)
        program  print(6*(455-723))                             392 end       (-1608 modulo 1000)

    A program begins with one literal; each level of `nesting` puts what is there into one operation with new literals:
    a sum, a difference, a product with a small factor, a choice, or a loop. Literals have exactly as many digits as the
    length says; factors and rounds of loops go up to four times that length, as in Zaremba and Sutskever, so that one
    reading from left to right is enough. Answers are taken modulo 10 to the longest length (the paper), or one power
    more (the authors' released code), or as they are.

    Length and nesting of training programs follow the curriculum; runs are judged at the highest of both:

        none      always the highest (the baseline)
        naive     at the current level: first the length rises to its highest, then the nesting
        mix       length and nesting uniform up to the highest, for each program (what the paper trains with)
        combined  naive or mix, for each program with equal probability

    The level of naive and combined rises by the rule of `Curriculum`.

    Plateau: the share of right characters of a model that writes the most frequent character at each place, about 25 %
    for three digits and the end. Records (share of right characters, length 5, nesting 2): add 100 % and control 100 %
    (Universal Transformer, Dehghani et al. 2019), program 89 % (the same; the relational memory of the paper 79 %). The
    generators of those papers are not this one: they differ from each other, too.

    Example:
        >>> from relational_rnn.tasks.contract import draw_batch
        >>> batch = draw_batch(Programs(mode="add", length=3), "valid", 0, seed=0, size=1)
        >>> CHARACTERS.decode(batch.inputs[0]), ANSWERS.decode(batch.targets[0] + 1)
        ('print(643+367)', '10end')
    """

    mode: ProgramMode = "add"
    """Which operations there are."""
    length: int = 5
    """Digits of the longest literals."""
    nesting: int = 1
    """The most operations of a program."""
    curriculum: CurriculumName = "mix"
    """How difficult training programs are."""
    modulus: Modulus = "length"
    """Answers modulo 10^length, modulo 10^(length + 1), or as they are."""
    window: int = 200
    """naive and combined: updates whose mean loss is compared."""
    improvement: float = 0.05
    """naive and combined: a level goes on while the loss falls by this share from window to window."""

    name: ClassVar[str] = "programs"

    def __post_init__(self) -> None:
        where = "Programs"
        check_choice(where, "mode", self.mode, OPERATIONS)
        check_choice(where, "curriculum", self.curriculum, CURRICULA)
        check_choice(where, "modulus", self.modulus, MODULI)
        check_positive(where, length=self.length, nesting=self.nesting, window=self.window)
        if self.mode == "add" and self.nesting > 1:
            problem = "nesting needs the mode control or program: an addition has two numbers"
            raise InputError(describe(where, problem, got=f"nesting {self.nesting} with the mode 'add'", expected=1))
        if self._bound >= 2**62:
            problem = "the results of such programs do not fit into 64 bits"
            raise InputError(describe(where, problem, got=f"length {self.length} and nesting {self.nesting}"))
        if not is_number(self.improvement) or not 0 < self.improvement < 1:
            raise InputError(describe(where, "improvement must be a share between 0 and 1", got=repr(self.improvement)))
        defaults = {field.name: field.default for field in fields(self)}
        changed = [name for name in ("window", "improvement") if getattr(self, name) != defaults[name]]
        if changed and self.curriculum not in ("naive", "combined"):
            problem = f"{' and '.join(changed)} would have no effect: this curriculum has no levels"
            raise InputError(describe(where, problem, got=repr(self.curriculum), expected="naive or combined"))

    @property
    def _bound(self) -> int:
        """No result is larger than this, nor smaller than minus this."""
        bound = 10**self.length
        for _ in range(self.nesting):
            bound = bound * FACTOR * self.length + 10**self.length
        return bound

    @property
    def _answer_width(self) -> int:
        """Characters of the longest answer, its end included."""
        if self.modulus == "none":
            return len(str(-self._bound)) + 1
        return self.length + (self.modulus == "length+1") + 1

    @property
    def _longest(self) -> int:
        """Characters of the longest program."""
        added = {"+": 1 + self.length, "-": 1 + self.length, "*": 1 + len(str(FACTOR * self.length))}
        added["if"] = len(" if ") + len("<") + len(" else ") + 3 * self.length
        added["for"] = len("v=\nfor x in range():v+=\nv") + len(str(FACTOR * self.length)) + self.length

        def size(operations: tuple[str, ...]) -> int:
            # every result but that of a loop, which is a variable, stands in brackets when it is used
            brackets = sum(2 for operation in operations[:-1] if operation != "for")
            return self.length + sum(added[operation] for operation in operations) + brackets

        sequences = itertools.product(OPERATIONS[self.mode], repeat=self.nesting)
        return len("print()") + max(size(operations) for operations in sequences)

    @property
    def shape(self) -> TaskShape:
        return TaskShape(
            inputs=len(CHARACTERS),
            tokens=True,
            classes=len(ANSWERS) - 1,
            answer="decoded",
            steps=self._longest + self._answer_width,
            groups=(f"length {self.length}, nesting {self.nesting}",),
        )

    def make_curriculum(self) -> Curriculum | None:
        if self.curriculum not in ("naive", "combined"):
            return None
        return Curriculum(self.length + self.nesting - 1, window=self.window, improvement=self.improvement)

    def difficulty(
        self, count: int, generator: torch.Generator, *, split: Split, level: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """(length, nesting), each [B] int64, of `count` programs."""
        device = generator.device
        highest = torch.full((count,), self.length, device=device), torch.full((count,), self.nesting, device=device)
        if split != "train" or self.curriculum == "none":
            return highest
        mixed = tuple(
            torch.randint(1, most + 1, (count,), device=device, generator=generator)
            for most in (self.length, self.nesting)
        )
        if self.curriculum == "mix":
            return mixed[0], mixed[1]
        level = self.length + self.nesting - 2 if level is None else level
        now = min(level + 1, self.length), max(1, level + 2 - self.length)
        naive = torch.ones(count, dtype=torch.bool, device=device)
        if self.curriculum == "combined":
            naive = torch.rand(count, device=device, generator=generator) < 0.5
        length, nesting = (torch.where(naive, here, mix) for here, mix in zip(now, mixed, strict=True))
        return length, nesting

    def draw(self, count: int, generator: torch.Generator, *, split: Split, level: int | None = None) -> TaskBatch:
        length, nesting = self.difficulty(count, generator, split=split, level=level)
        writer = _Writer(length, self.length, generator)
        for depth in range(self.nesting):
            operation = torch.randint(
                len(OPERATIONS[self.mode]), (count,), device=generator.device, generator=generator
            )
            writer.nest(
                [operation == i for i in range(len(OPERATIONS[self.mode]))], OPERATIONS[self.mode], nesting > depth
            )
        inputs, lengths = close_gaps(writer.program())
        targets = self._answers(writer.value)
        return TaskBatch(inputs, lengths, targets, torch.zeros_like(lengths))

    def _answers(self, values: Tensor) -> Tensor:
        """The printed characters of `values` [B], and the end, as classes [B, K]."""
        if self.modulus != "none":
            values = values % 10 ** (self.length + (self.modulus == "length+1"))  # never negative, as in Python
        sign = (values < 0).long().unsqueeze(1) * ANSWERS["-"]
        digits = digit_cells(values.abs(), self._answer_width - 1) + 1
        tokens, _ = close_gaps(torch.cat([sign, digits, constant([ANSWERS["end"]], values)], 1))
        return tokens - 1


class _Writer:
    """`count` programs that grow side by side: statements, an expression for what has been computed, and its value."""

    def __init__(self, length: Tensor, longest: int, generator: torch.Generator) -> None:
        self.length, self.longest, self.generator = length, longest, generator
        count, self.device = len(length), generator.device
        order = torch.rand(count, len(VARIABLES), device=self.device, generator=generator).argsort(1)
        names = torch.tensor(CHARACTERS.encode(VARIABLES), device=self.device)[order]
        self.names = iter(names.split(1, 1))  # a new name for every level
        self.statements = length.new_zeros(count, 0)
        self.value, self.expression = self.literal()
        self.brackets = torch.zeros(count, dtype=torch.bool, device=self.device)  # the expression needs them as operand

    def literal(self) -> tuple[Tensor, Tensor]:
        """Values [B] with as many digits as the length says, and their cells."""
        low = 10 ** (self.length - 1)
        share = torch.rand(len(low), dtype=torch.float64, device=self.device, generator=self.generator)
        values = low + (share * 9 * low).long()
        return values, digit_cells(values, self.longest) + 1

    def small(self) -> tuple[Tensor, Tensor]:
        """Values [B] from 1 to four times the length, and their cells."""
        share = torch.rand(len(self.length), dtype=torch.float64, device=self.device, generator=self.generator)
        values = 1 + (share * FACTOR * self.length).long()
        return values, digit_cells(values, len(str(FACTOR * self.longest))) + 1

    def nest(self, chosen: list[Tensor], operations: tuple[str, ...], deeper: Tensor) -> None:
        """Put what has been computed into one more operation, in the rows where `deeper` [B] is true.

        Args:
            chosen: for each of `operations`, [B] booleans: the rows that take it.
            operations: their names.
            deeper: [B].
        """
        count, device = len(self.length), self.device
        open_, close = (constant([CHARACTERS[c]], self.length) * self.brackets.unsqueeze(1) for c in "()")
        operand = torch.cat([open_, self.expression, close], 1)
        literals = [self.literal() for _ in range(4)]
        small, name = self.small(), next(self.names)
        place = torch.randint(12, (count,), device=device, generator=self.generator)  # 2 and 4 divide 12

        def operands(places: int, others: list[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
            """(values, cells) of an operation's operands, what has been computed being one of them."""
            here = [place % places == i for i in range(places)]
            values = [torch.where(at, self.value, value) for at, (value, _) in zip(here, others, strict=True)]
            cells = []
            for at, (_, other) in zip(here, others, strict=True):
                ours, theirs = same_width([operand, other])
                cells.append(torch.where(at.unsqueeze(1), ours, theirs))
            return values, cells

        def text(characters: str) -> Tensor:
            return constant(CHARACTERS.encode(characters), self.length)

        results: list[tuple[Tensor, Tensor, Tensor]] = []  # value, statements, expression
        nothing = self.statements[:, :0]
        for operation in operations:
            if operation in "+-":
                (a, b), (left, right) = operands(2, literals[:2])
                results.append(
                    (a + b if operation == "+" else a - b, nothing, torch.cat([left, text(operation), right], 1))
                )
            elif operation == "*":
                (a, b), (left, right) = operands(2, [small, small])
                results.append((a * b, nothing, torch.cat([left, text("*"), right], 1)))
            elif operation == "if":
                (a, b, c, d), (then, less, more, otherwise) = operands(4, literals)
                smaller = torch.rand(count, device=device, generator=self.generator) < 0.5
                sign = torch.where(smaller.unsqueeze(1), text("<"), text(">"))
                value = torch.where(torch.where(smaller, b < c, b > c), a, d)
                parts = [then, text(" if "), less, sign, more, text(" else "), otherwise]
                results.append((value, nothing, torch.cat(parts, 1)))
            else:
                (a, b), (start, step) = operands(2, literals[:2])
                parts = [
                    name,
                    text("="),
                    start,
                    text("\nfor x in range("),
                    small[1],
                    text("):"),
                    name,
                    text("+="),
                    step,
                ]
                results.append((a + small[0] * b, torch.cat([*parts, text("\n")], 1), name))
        chosen = [*(rows & deeper for rows in chosen), ~deeper]
        results.append((self.value, nothing, self.expression))
        self.value = _choose(chosen, [value.unsqueeze(1) for value, _, _ in results]).squeeze(1)
        self.statements = torch.cat([self.statements, _choose(chosen, [lines for _, lines, _ in results])], 1)
        self.expression = _choose(chosen, [expression for _, _, expression in results])
        compound = [torch.full_like(self.brackets, operation != "for") for operation in operations]
        self.brackets = _choose(chosen, [rows.unsqueeze(1) for rows in [*compound, self.brackets]]).squeeze(1)

    def program(self) -> Tensor:
        """The cells of the whole programs."""
        begin, end = (constant(CHARACTERS.encode(part), self.length) for part in ("print(", ")"))
        return torch.cat([self.statements, begin, self.expression, end], 1)


def _choose(chosen: list[Tensor], options: list[Tensor]) -> Tensor:
    """Row by row, the option [B, W] whose `chosen` [B] is true."""
    options = same_width(options)
    result = torch.zeros_like(options[0])
    for rows, option in zip(chosen, options, strict=True):
        result = torch.where(rows.unsqueeze(1), option, result)
    return result


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ProgramsRun(TaskRun):
    """Everything that decides a run on learning to execute."""

    data: Programs = dataclasses.field(default_factory=Programs)
    """The task."""

    task_name: ClassVar[str] = Programs.name


_WIDE = MemorySizes(mem_slots=2, head_size=32, num_heads=4, attention_mlp_layers=1)
"""What does best on programs of those tried: fewer and wider slots."""


def programs_add_small() -> ProgramsRun:
    """Additions of two numbers of up to three digits.

    Expected score: 99.6 ± 0.4 % of the characters, 98.5 % of whole answers (three seeds; LSTM at 8e-3 99.7 ± 0.0 and
    98.9 %). Time: 124 processor seconds. Machine: 2-core CPU, one thread.
    Command: `relational-rnn train programs --recipe programs-add-small`.
    """
    return ProgramsRun(**decoding_small(Programs(mode="add", length=3), _WIDE, 3000))


def programs_control_small() -> ProgramsRun:
    """A choice or a loop with numbers of up to two digits.

    Expected score: 70.2 ± 0.6 % of the characters, 50.0 % of whole answers (three seeds; LSTM at 8e-3 76.4 ± 0.8 and
    51.3 %). Time: 296 processor seconds. Machine: 2-core CPU, one thread.
    Command: `relational-rnn train programs --recipe programs-control-small`.
    """
    return ProgramsRun(**decoding_small(Programs(mode="control", length=2), _WIDE, 4000))


def programs_program_small() -> ProgramsRun:
    """One operation of arithmetic, a choice or a loop, with numbers of up to two digits.

    Expected score: 86.8 ± 0.6 % of the characters, 77.0 % of whole answers (three seeds; LSTM at 8e-3 87.0 ± 1.3 and
    76.9 %). Time: 303 processor seconds. Machine: 2-core CPU, one thread.
    Command: `relational-rnn train programs --recipe programs-program-small`.
    """
    return ProgramsRun(**decoding_small(Programs(mode="program", length=2), _WIDE, 4000))


def programs_add() -> ProgramsRun:
    """Additions of two numbers of up to five digits, as in the paper (A.2).

    Expected score: not measured yet (published: 99.9 %). Time: not measured yet. Machine: one GPU.
    Command: `relational-rnn train programs --recipe programs-add --loop.accelerator cuda`.
    """
    return ProgramsRun(**decoding(Programs(mode="add", length=5)))


def programs_control() -> ProgramsRun:
    """Choices and loops, numbers of up to five digits, nesting 2, as in the paper (A.2).

    Expected score: not measured yet (published: 99.6 %). Time: not measured yet. Machine: one GPU.
    Command: `relational-rnn train programs --recipe programs-control --loop.accelerator cuda`.
    """
    return ProgramsRun(**decoding(Programs(mode="control", length=5, nesting=2)))


def programs_program() -> ProgramsRun:
    """Arithmetic, choices and loops, numbers of up to five digits, nesting 2, as in the paper (A.2).

    Expected score: not measured yet (published: 79.0 %). Time: not measured yet. Machine: one GPU.
    Command: `relational-rnn train programs --recipe programs-program --loop.accelerator cuda`.
    """
    return ProgramsRun(**decoding(Programs(mode="program", length=5, nesting=2)))


# Table 1 of the paper is an image; these of its figures are also listed in writing elsewhere.
_SANTORO = "Santoro et al. 2018, arXiv 1806.01822, table 1 (as listed on public result pages)"
_DEHGHANI = "Dehghani et al. 2019, arXiv 1807.03819"
# (mode, nesting, model, accuracy of characters, what a reader must know of it, source)
_FIGURES = (
    *(
        (*figure, "characters; length 5, nesting 2, another generator; best run", _SANTORO)
        for figure in (
            ("add", 1, "RMC", 0.999),
            ("control", 2, "RMC", 0.996),
            ("control", 2, "DNC", 0.838),
            ("program", 2, "RMC", 0.79),
        )
    ),
    *(
        (*figure, "characters; length 5, nesting 2, another generator", _DEHGHANI)
        for figure in (
            ("add", 1, "LSTM", 0.83),
            ("add", 1, "Transformer", 1.0),
            ("add", 1, "Universal Transformer", 1.0),
            ("control", 2, "LSTM", 0.68),
            ("control", 2, "Transformer", 0.93),
            ("control", 2, "Universal Transformer", 1.0),
            ("program", 2, "LSTM", 0.53),
            ("program", 2, "Transformer", 0.71),
            ("program", 2, "Universal Transformer", 0.89),
        )
    ),
)
PUBLISHED = tuple(
    Published(
        data={"mode": mode, "length": 5, "nesting": nesting}, model=model, value=value, setting=setting, source=source
    )
    for mode, nesting, model, value, setting, source in _FIGURES
)
WORKLOAD = TaskWorkload(
    ProgramsRun,
    {
        "programs-add-small": programs_add_small,
        "programs-control-small": programs_control_small,
        "programs-program-small": programs_program_small,
        "programs-add": programs_add,
        "programs-control": programs_control,
        "programs-program": programs_program,
    },
    PUBLISHED,
)
