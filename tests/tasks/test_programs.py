"""Programs: Python itself runs every one of them, and the curricula are what they say."""

from __future__ import annotations

import re

import pytest
import torch

from relational_rnn import InputError
from relational_rnn.tasks.contract import NO_ANSWER, draw_batch
from relational_rnn.tasks.programs import ANSWERS, CHARACTERS, CURRICULA, OPERATIONS, Programs


def texts(task: Programs, split="valid", count=200, seed=0, level=None) -> list[tuple[str, str]]:
    """(program, answer) of a batch."""
    batch = draw_batch(task, split, 0, seed=seed, size=count, level=level)
    pairs = []
    for tokens, target in zip(batch.inputs, batch.targets, strict=True):
        answer = ANSWERS.decode(target[target != NO_ANSWER] + 1)
        assert answer.endswith("end")
        pairs.append((CHARACTERS.decode(tokens), answer.removesuffix("end")))
    return pairs


def printed(program: str) -> int:
    """What Python prints, nothing but `range` and `print` being at hand."""
    lines: list[int] = []
    assert re.fullmatch(r"[0-9a-z+\-*=<>:() \n]+", program)
    exec(program, {"__builtins__": {"range": range, "print": lines.append}})
    (line,) = lines
    return line


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize("modulus", ["length", "length+1", "none"])
@pytest.mark.parametrize(
    ("mode", "length", "nesting"),
    [("add", 1, 1), ("add", 6, 1), ("control", 3, 1), ("control", 2, 4), ("program", 1, 3), ("program", 5, 2)],
)
def test_every_target_is_what_python_prints(mode, length, nesting, modulus, split):
    task = Programs(mode=mode, length=length, nesting=nesting, modulus=modulus)
    for program, answer in texts(task, split):
        value = printed(program)
        if modulus != "none":
            value %= 10 ** (length if modulus == "length" else length + 1)
        assert str(value) == answer, program


@pytest.mark.parametrize(("mode", "nesting"), [("add", 1), ("control", 3), ("program", 3)])
def test_a_mode_has_all_its_operations_and_no_others(mode, nesting):
    programs = "\n".join(program for program, _ in texts(Programs(mode=mode, length=3, nesting=nesting)))
    signs = {"+": r"[^+]\+[^=]", "-": "-", "*": r"\*", "if": " if ", "for": "for "}
    assert {sign for sign, pattern in signs.items() if re.search(pattern, programs)} == set(OPERATIONS[mode])


def operations(program: str) -> int:
    """How many operations a program has; the sum in a loop's `+=` is part of the loop."""
    return len(re.findall(r" if |for |\+(?!=)|-|\*", program))


def digits(program: str) -> int:
    """Of its literals: factors and rounds may have fewer."""
    return max(len(number) for number in re.findall(r"\d+", program))


@pytest.mark.parametrize("curriculum", CURRICULA)
def test_measured_programs_have_the_highest_difficulty(curriculum):
    for program, _ in texts(Programs(mode="program", length=4, nesting=3, curriculum=curriculum), level=0):
        assert (operations(program), digits(program)) == (3, 4), program


def difficulties(curriculum: str, level: int | None) -> set[tuple[int, int]]:
    task = Programs(mode="program", length=3, nesting=2, curriculum=curriculum)
    length, nesting = task.difficulty(500, torch.Generator().manual_seed(1), split="train", level=level)
    return set(zip(length.tolist(), nesting.tolist(), strict=True))


ALL = {(length, nesting) for length in (1, 2, 3) for nesting in (1, 2)}


def test_the_curricula_are_what_they_say():
    assert difficulties("none", None) == {(3, 2)}
    assert difficulties("mix", None) == ALL
    assert [difficulties("naive", level) for level in range(4)] == [{(1, 1)}, {(2, 1)}, {(3, 1)}, {(3, 2)}]
    assert difficulties("naive", None) == {(3, 2)}
    assert difficulties("combined", 0) == ALL  # half of them mixed
    task = Programs(mode="program", length=3, nesting=2, curriculum="combined")
    length, nesting = task.difficulty(6000, torch.Generator().manual_seed(1), split="train", level=1)
    share = ((length == 2) & (nesting == 1)).float().mean()
    assert abs(float(share) - (0.5 + 0.5 / 6)) < 0.03


def test_training_programs_follow_the_difficulty():
    easy = Programs(mode="control", length=3, nesting=2, curriculum="naive")
    assert {(operations(p), digits(p)) for p, _ in texts(easy, "train", level=1)} == {(1, 2)}
    mixed = Programs(mode="control", length=3, nesting=2, curriculum="mix")
    assert {operations(p) for p, _ in texts(mixed, "train")} == {1, 2}


def test_only_a_curriculum_with_levels_has_a_state():
    made = {
        name: Programs(mode="control", length=3, nesting=2, curriculum=name).make_curriculum() for name in CURRICULA
    }
    assert made["none"] is made["mix"] is None
    assert made["naive"].levels == made["combined"].levels == 4


def test_the_longest_program_is_the_longest_that_is_drawn():
    for mode, nesting in (("add", 1), ("control", 2), ("program", 2), ("program", 1)):
        task = Programs(mode=mode, length=3, nesting=nesting, curriculum="none")
        batch = draw_batch(task, "train", 0, seed=0, size=4000)
        assert batch.inputs.shape[1] == task._longest
        assert task.shape.steps == task._longest + task._answer_width


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"nesting": 2}, r"nesting needs the mode control or program(.|\n)*nesting 2 with the mode 'add'"),
        ({"length": 0}, "length must be a whole number of at least 1"),
        ({"mode": "control", "nesting": 0}, "nesting must be a whole number of at least 1"),
        ({"curriculum": "hard"}, r"curriculum is not a known choice\n  got       'hard'"),
        ({"mode": "divide"}, "mode is not a known choice"),
        ({"modulus": "7"}, "modulus is not a known choice"),
        ({"mode": "program", "length": 9, "nesting": 9}, "the results of such programs do not fit into 64 bits"),
        ({"window": 7}, r"window would have no effect: this curriculum has no levels\n  got       'mix'"),
        ({"curriculum": "none", "improvement": 0.2}, "improvement would have no effect"),
        ({"curriculum": "naive", "improvement": 1.0}, "improvement must be a share"),
        ({"curriculum": "naive", "window": 0}, "window must be a whole number"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(InputError, match=f"Programs: {message}"):
        Programs(**wrong)
