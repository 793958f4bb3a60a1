"""Tasks 15 and 16: animals of a kind; what a kind fears holds for each of them, and one may tell another's colour."""

from __future__ import annotations

from relational_rnn.tasks.babi.generation.world import Book, Dice
from relational_rnn.tasks.babi.story import Story

PLURAL = {"mouse": "mice", "sheep": "sheep", "wolf": "wolves", "cat": "cats"}
TIMID = ("Gertrude", "Winona", "Emily", "Jessica")

SPECIES = ("swan", "lion", "frog", "rhino")
COLOURS = ("green", "white", "yellow", "gray")
COLOURED = ("Lily", "Bernhard", "Brian", "Julius", "Greg")


def basic_deduction(dice: Dice) -> Story:
    """Task 15: what each of four kinds is afraid of, and four animals of kinds whose fear was told before."""
    book = Book(15)
    kinds = tuple(PLURAL)
    fear: dict[str, tuple[int, str]] = {}
    kind_of: dict[str, tuple[int, str]] = {}
    while len(fear) < len(kinds) or len(kind_of) < len(TIMID):
        kind = dice.pick(kinds)
        if dice.chance(0.5):
            if kind not in fear:
                feared = dice.pick([other for other in kinds if other != kind])
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

    Animals of a kind need not agree: one has the colour told last of its kind since it was introduced, or else draws
    its own. As in the published files, the animal asked about has one, three or four of its kind beside it.
    """
    while True:
        book = Book(16)
        species: dict[str, str] = {}
        colour: dict[str, str] = {}
        introduced: dict[str, int] = {}
        coloured: dict[str, int] = {}
        while len(species) < len(COLOURED) or len(coloured) < len(COLOURED) - 1:
            name = dice.pick(COLOURED)
            if dice.chance(0.5):
                if name not in species:
                    species[name] = dice.pick(SPECIES)
                    introduced[name] = book.tell(f"{name} is a {species[name]}.")
            elif name in species and name not in coloured and len(coloured) < len(COLOURED) - 1:
                shown = colour.setdefault(name, dice.pick(COLOURS))
                for other, kind in species.items():
                    if kind == species[name] and other not in coloured:
                        colour[other] = shown
                coloured[name] = book.tell(f"{name} is {shown}.")
        asked = next(name for name in COLOURED if name not in coloured)
        same = [name for name in species if species[name] == species[asked] and name != asked]
        if len(same) in (1, 3, 4):
            other = same[-1]
            supports = (introduced[asked], introduced[other], coloured[other])
            book.ask(f"What color is {asked}?", colour[other], supports)
            return book.story()
