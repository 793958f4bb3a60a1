"""Task 20: four people, each with a need; where it takes them, why they go there and why they take a thing."""

from __future__ import annotations

from relational_rnn.tasks.babi.generation.world import GO, TAKE, Book, Dice
from relational_rnn.tasks.babi.story import Story

PEOPLE = ("Sumit", "Yann", "Jason", "Antoine")
NEEDS = {
    "tired": ("bedroom", "pajamas"),
    "hungry": ("kitchen", "apple"),
    "thirsty": ("kitchen", "milk"),
    "bored": ("garden", "football"),
}


def agents_motivations(dice: Dice) -> Story:
    """Task 20: somebody feels a need, goes, and takes what helps unless somebody else already has it."""
    book = Book(20)
    need = {person: dice.pick(tuple(NEEDS)) for person in PEOPLE}
    felt: dict[str, int] = {}
    gone: set[str] = set()
    taken: set[str] = set()
    waiting = list(PEOPLE)
    while waiting:
        who = dice.pick(waiting)
        name = who.lower()
        place, thing = NEEDS[need[who]]
        if who not in felt:
            felt[who] = book.tell(f"{who} is {need[who]}.")
            book.ask(f"Where will {name} go?", place, (felt[who],))
        elif who not in gone:
            gone.add(who)
            book.tell(f"{who} {dice.pick(GO)} the {place}.")
            book.ask(f"Why did {name} go to the {place}?", need[who], (felt[who],))
        else:
            waiting.remove(who)
            if thing not in taken:
                taken.add(thing)
                book.tell(f"{who} {dice.pick(TAKE)} the {thing} there.")
                book.ask(f"Why did {name} get the {thing}?", need[who], (felt[who],))
    return book.story()
