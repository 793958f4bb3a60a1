"""The small world that the stories tell of: people in places who carry things, and the book a story is written in."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from relational_rnn.tasks.babi.story import Question, Story

T = TypeVar("T")

ROOMS = ("kitchen", "garden", "hallway", "bathroom", "bedroom", "office")
TOWN = ("school", "park", "cinema", "office", "kitchen", "bedroom")
HOUSEHOLD = ("John", "Mary", "Sandra", "Daniel")
NEIGHBOURS = ("Fred", "Bill", "Julie", "Mary")
THINGS = ("apple", "football", "milk")

GO = ("moved to", "went to", "went back to", "travelled to", "journeyed to")
TAKE = ("picked up", "got", "grabbed", "took")
DROP = ("left", "discarded", "dropped", "put down")
GIVE = ("gave", "handed", "passed")

RECENT = 5
"""Questions are about something that one of the last five statements touched."""


class Dice:
    """One seeded stream of draws.

    Only `Random.random` is used: its values, unlike those of `choice` or `shuffle`, are promised to stay the same from
    one Python version to the next, and seeding with text does not depend on the hash seed.
    """

    __slots__ = ("draw",)

    def __init__(self, seed: str) -> None:
        self.draw = random.Random(seed).random

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self.draw() * len(options))]

    def chance(self, probability: float) -> bool:
        return self.draw() < probability

    def shuffled(self, items: Iterable[T]) -> list[T]:
        items = list(items)
        for last in range(len(items) - 1, 0, -1):
            other = int(self.draw() * (last + 1))
            items[last], items[other] = items[other], items[last]
        return items


class Book:
    """A story while it is being written."""

    __slots__ = ("questions", "statements", "task")

    def __init__(self, task: int) -> None:
        self.task = task
        self.statements: list[str] = []
        self.questions: list[Question] = []

    def tell(self, statement: str) -> int:
        """Write a statement down and return its index."""
        self.statements.append(statement)
        return len(self.statements) - 1

    def ask(self, text: str, answer: str, supports: Iterable[int]) -> None:
        self.questions.append(Question(text, answer, tuple(supports), len(self.statements)))

    def story(self) -> Story:
        return Story(self.task, tuple(self.statements), tuple(self.questions))


class Action(NamedTuple):
    """What somebody did: `what` is the place of a "go" and else the thing, `to` the receiver of a "give"."""

    verb: str
    who: str
    what: str
    to: str = ""


class World:
    """Where everybody and everything is. At first only the world knows; a reader learns it from the actions."""

    def __init__(self, dice: Dice, people: Sequence[str], places: Sequence[str], things: Sequence[str] = ()) -> None:
        self.dice, self.people, self.places, self.things = dice, people, places, things
        self.place = {person: dice.pick(places) for person in people}
        self.lying: dict[str, str | None] = {thing: dice.pick(places) for thing in things}
        self.carried: dict[str, list[str]] = {person: [] for person in people}

    def act(self, verbs: Sequence[str]) -> Action:
        """Let something happen: draw a verb and who does it, again and again until that is possible."""
        pick = self.dice.pick
        while True:
            verb = pick(verbs)
            if verb == "give":
                action = self._give()
                if action is not None:
                    return action
                continue
            who = pick(self.people)
            if verb == "go":
                where = pick(self.places)
                if where != self.place[who]:
                    self.place[who] = where
                    return Action("go", who, where)
            elif verb == "take":
                here = self.place[who]
                found = [thing for thing in self.things if self.lying[thing] == here]
                if found:
                    thing = pick(found)
                    self.lying[thing] = None
                    self.carried[who].append(thing)
                    return Action("take", who, thing)
            elif self.carried[who]:
                thing = pick(self.carried[who])
                self.carried[who].remove(thing)
                self.lying[thing] = self.place[who]
                return Action("drop", who, thing)

    def _give(self) -> Action | None:
        """As in the published stories, the first thing that can be given goes to the first person present."""
        for thing in self.things:
            for giver in self.people:
                if thing in self.carried[giver]:
                    for receiver in self.people:
                        if receiver != giver and self.place[receiver] == self.place[giver]:
                            self.carried[giver].remove(thing)
                            self.carried[receiver].append(thing)
                            return Action("give", giver, thing, receiver)
        return None


def sentence(dice: Dice, action: Action, there: Mapping[str, float]) -> str:
    """Tell an action. `there`: how often a "take" and a "drop" end in the word "there"."""
    if action.verb == "go":
        return f"{action.who} {dice.pick(GO)} the {action.what}."
    if action.verb == "give":
        return f"{action.who} {dice.pick(GIVE)} the {action.what} to {action.to}."
    verb = dice.pick(TAKE if action.verb == "take" else DROP)
    tail = " there" if dice.chance(there[action.verb]) else ""
    return f"{action.who} {verb} the {action.what}{tail}."


class Asker(Protocol):
    """Follows a story from what was told and finds a question that it answers by now, if there is one."""

    def note(self, index: int, action: Action) -> None: ...

    def question(self, now: int) -> tuple[str, str, Iterable[int]] | None: ...


def play(dice: Dice, task: int, world: World, verbs: Sequence[str], there: Mapping[str, float], asker: Asker) -> Story:
    """Five questions, one after every second statement if there is something to ask by then."""
    book = Book(task)
    while len(book.questions) < 5:
        for _ in range(2):
            action = world.act(verbs)
            asker.note(book.tell(sentence(dice, action, there)), action)
        asked = asker.question(len(book.statements))
        if asked is not None:
            book.ask(*asked)
    return book.story()
