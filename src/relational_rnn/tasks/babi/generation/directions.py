"""Tasks 4 and 19: rooms laid out on a grid; what lies where of what, and the way from one to another."""

from __future__ import annotations

from relational_rnn.tasks.babi.generation.world import ROOMS, Book, Dice
from relational_rnn.tasks.babi.story import Story

Cell = tuple[int, int]

STEPS: dict[str, Cell] = {"north": (0, 1), "south": (0, -1), "east": (1, 0), "west": (-1, 0)}
NAME_OF_STEP = {step: name for name, step in STEPS.items()}
OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}


def _towards(start: Cell, end: Cell) -> str:
    """The direction of the neighbouring cell `end` as seen from `start`."""
    return NAME_OF_STEP[end[0] - start[0], end[1] - start[1]]


def _told_once(dice: Dice, doors: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Each pair of neighbours once, as (subject, object): draw a room and one of its neighbours until all are told."""
    beside: dict[str, list[str]] = {}
    for one, other in doors:
        beside.setdefault(one, []).append(other)
        beside.setdefault(other, []).append(one)
    rooms = list(beside)
    told: list[tuple[str, str]] = []
    while len(told) < len(doors):
        subject = dice.pick(rooms)
        pair = (subject, dice.pick(beside[subject]))
        if pair not in told and pair[::-1] not in told:
            told.append(pair)
    return told


def two_arg_relations(dice: Dice) -> Story:
    """Task 4: three rooms in a row; a statement is turned into a question about its object."""
    book = Book(4)
    middle, one, other = dice.shuffled(ROOMS)[:3]
    step = STEPS[dice.pick(tuple(STEPS))]
    cell = {middle: (0, 0), one: step, other: (-step[0], -step[1])}
    told = _told_once(dice, [(middle, one), (middle, other)])
    for subject, beside in told:
        book.tell(f"The {subject} is {_towards(cell[beside], cell[subject])} of the {beside}.")
    index = dice.pick((0, 1))
    answer, asked = told[index]
    direction = _towards(cell[asked], cell[answer])
    if dice.chance(0.5):
        book.ask(f"What is {direction} of the {asked}?", answer, (index,))
    else:
        book.ask(f"What is the {asked} {OPPOSITE[direction]} of?", answer, (index,))
    return book.story()


def path_finding(dice: Dice) -> Story:
    """Task 19: two steps from one room to another; three more rooms lie beside the three on the way."""
    book = Book(19)
    rooms = dice.shuffled(ROOMS)
    first = dice.pick(tuple(STEPS))
    second = dice.pick([name for name in STEPS if name != OPPOSITE[first]])
    start: Cell = (0, 0)
    middle = STEPS[first]
    end = (middle[0] + STEPS[second][0], middle[1] + STEPS[second][1])
    way = (start, middle, end)
    free = [
        (step_from, beside)
        for step_from in way
        for step in STEPS.values()
        if (beside := (step_from[0] + step[0], step_from[1] + step[1])) not in way
    ]
    while True:  # two rooms of the way may have a neighbouring cell in common: never two rooms in one cell
        extra = dice.shuffled(free)[:3]
        if len({beside for _, beside in extra}) == 3:
            break
    cell: dict[str, Cell] = dict(zip(rooms, (*way, *(beside for _, beside in extra)), strict=True))
    room = {place: name for name, place in cell.items()}
    doors = [(rooms[0], rooms[1]), (rooms[1], rooms[2])]
    doors += [(room[step_from], room[beside]) for step_from, beside in extra]
    told = _told_once(dice, doors)
    for subject, beside in told:
        book.tell(f"The {subject} is {_towards(cell[beside], cell[subject])} of the {beside}.")
    index = {frozenset(pair): number for number, pair in enumerate(told)}
    supports = (index[frozenset(doors[0])], index[frozenset(doors[1])])
    book.ask(f"How do you go from the {rooms[0]} to the {rooms[2]}?", f"{first[0]},{second[0]}", supports)
    return book.story()
