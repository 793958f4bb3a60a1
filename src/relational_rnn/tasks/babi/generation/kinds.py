"""Tasks 15 and 16: animals of a kind; what a kind fears holds for each of them, and one may tell another's colour."""

from __future__ import annotations

from relational_rnn.tasks.babi.generation.world import Book, Dice
from relational_rnn.tasks.babi.story import Story

PLURAL = {"mouse": "mice", "sheep": "sheep", "wolf": "wolves", "cat": "cats"}
TIMID = ("Gertrude", "Winona", "Emily", "Jessica")

KINDS = ("swan", "lion", "frog", "rhino")
COLOURS = ("green", "white", "yellow", "gray")
COLOURED = ("Lily", "Bernhard", "Brian", "Julius", "Greg")


def basic_deduction(dice: Dice) -> Story:
    """Task 15: what each of four kinds is afraid of, and four animals of kinds whose fear was told before."""
    book = Book(15)
    fear: dict[str, tuple[int, str]] = {}
    kind_of: dict[str, tuple[int, str]] = {}
    while len(fear) < len(PLURAL) or len(kind_of) < len(TIMID):
        kind = dice.pick(tuple(PLURAL))
        if dice.chance(0.5):
            if kind not in fear:
                feared = dice.pick([other for other in PLURAL if other != kind])
                index = book.tell(f"{PLURAL[kind].capitalize()} are afraid of {PLURAL[feared]}.")
                fear[kind] = (index, feared)
        else:
            name = dice.pick(TIMID)
            if name not in kind_of and kind in fear:
                kind_of[name] = (book.tell(f"{name} is a {kind}."), kind)
    for _ in range(4):
        name = dice.pick(TIMID)
        named, kind = kind_of[name]
        told, feared = fear[kind]
        book.ask(f"What is {name.lower()} afraid of?", feared, (named, told))
    return book.story()


def basic_induction(dice: Dice) -> Story:
    """Task 16: the colour of one animal, by the one of its kind that was introduced last.

    Animals of a kind need not agree: each has a colour, but is said to have that of the last of its kind introduced by
    then. As in the published files, the animal asked about has one, three or four of its kind beside it.
    """
    while True:
        book = Book(16)
        kind_of: dict[str, str] = {}
        latest_colour: dict[str, str] = {}
        said: dict[str, str] = {}
        introduced: dict[str, int] = {}
        coloured: dict[str, int] = {}
        while len(kind_of) < len(COLOURED) or len(said) < len(COLOURED) - 1:
            name = dice.pick(COLOURED)
            if dice.chance(0.5):
                if name not in kind_of:
                    kind = kind_of[name] = dice.pick(KINDS)
                    latest_colour[kind] = dice.pick(COLOURS)
                    introduced[name] = book.tell(f"{name} is a {kind}.")
            elif name in kind_of and name not in said and len(said) < len(COLOURED) - 1:
                said[name] = latest_colour[kind_of[name]]
                coloured[name] = book.tell(f"{name} is {said[name]}.")
        asked = next(name for name in COLOURED if name not in said)
        same = [name for name in kind_of if kind_of[name] == kind_of[asked] and name != asked]
        if len(same) in (1, 3, 4):
            other = same[-1]
            supports = (introduced[asked], introduced[other], coloured[other])
            book.ask(f"What color is {asked}?", said[other], supports)
            return book.story()
