"""Tasks 17 and 18: where figures lie of one another, and what fits into what."""

from __future__ import annotations

from relational_rnn.tasks.babi.generation.world import Book, Dice
from relational_rnn.tasks.babi.story import Story

FIGURES = ("triangle", "pink rectangle", "blue square", "red square", "yellow square", "red sphere")
SIDES = {"above": (0, 1), "below": (0, -1), "to the left of": (-1, 0), "to the right of": (1, 0)}
SIDE_OF_STEP = {step: side for side, step in SIDES.items()}

CONTAINERS = ("box", "chest", "container", "suitcase")

ATTEMPTS = 45
"""How many random questions of task 18 are tried before five more facts are told."""
LATER_COPY = 0.6
"""How often the repetition of a fact, instead of the fact, supports a question of task 18."""


def positional_reasoning(dice: Dice) -> Story:
    """Task 17: two figures lie beside a third, on different sides of it; eight questions about those two."""
    book = Book(17)
    middle, first, second = dice.shuffled(FIGURES)[:3]
    steps = dice.shuffled(SIDES.values())[:2]
    for figure, (x, y) in zip((first, second), steps, strict=True):
        if dice.chance(2 / 3):
            book.tell(f"The {middle} is {SIDE_OF_STEP[-x, -y]} the {figure}.")
        else:
            book.tell(f"The {figure} is {SIDE_OF_STEP[x, y]} the {middle}.")
    for _ in range(8):
        order = dice.pick(((0, 1), (1, 0)))
        subject, other = (first, second)[order[0]], (first, second)[order[1]]
        (x, y), (u, v) = steps[order[0]], steps[order[1]]
        true = {side: (x - u) * a + (y - v) * b > 0 for side, (a, b) in SIDES.items()}
        yes = dice.chance(0.5)
        side = dice.pick([side for side, holds in true.items() if holds == yes])
        book.ask(f"Is the {subject} {side} the {other}?", "yes" if yes else "no", order)
    return book.story()


def size_reasoning(dice: Dice) -> Story:
    """Task 18: facts about sizes, five at a time, until five questions follow from two facts each."""
    book = Book(18)
    by_size = ["chocolate", "box of chocolates", *dice.shuffled(CONTAINERS)]
    pairs = [(small, large) for i, small in enumerate(by_size) for large in by_size[i + 1 :]]
    facts: list[tuple[str, str]] = []  # (smaller, larger), one for each statement
    asked = 0
    while asked < 5:
        asked = 0
        for _ in range(5):
            small, large = dice.pick(pairs)
            facts.append((small, large))
            if dice.chance(0.5):
                book.tell(f"The {small} fits inside the {large}.")
            else:
                book.tell(f"The {large} is bigger than the {small}.")
        while asked < 5 and (chain := _chain(dice, facts)) is not None:
            yes, supports = chain
            (small, _), (_, large) = (facts[index] for index in (supports[::-1] if yes else supports))
            bigger, smaller = (large, small) if yes else (small, large)
            text = f"Is the {bigger} bigger than the {smaller}?"
            if dice.chance(0.5):
                text = f"Does the {smaller} fit in the {bigger}?"
            book.ask(text, "yes" if yes else "no", supports)
            asked += 1
    return book.story()


def _chain(dice: Dice, facts: list[tuple[str, str]]) -> tuple[bool, tuple[int, int]] | None:
    """Draw a fact and one of its two objects; the first other fact with that object must lead on from it."""
    numbers = range(len(facts))
    for _ in range(ATTEMPTS):
        index = dice.pick(numbers)
        for copy in range(index + 1, len(facts)):
            if facts[copy] == facts[index] and dice.chance(LATER_COPY):
                index = copy
        yes = dice.chance(0.5)
        shared = facts[index][0 if yes else 1]
        other = next((number for number in numbers if number != index and shared in facts[number]), None)
        if other is not None and facts[other][1 if yes else 0] == shared:
            return yes, (index, other)
    return None
