"""Tasks 1, 2, 3, 6, 7 and 8: people walk about and carry things; where somebody or something is, and who has what."""

from __future__ import annotations

from collections.abc import Iterable

from relational_rnn.tasks.babi.generation.world import (
    HOUSEHOLD,
    RECENT,
    ROOMS,
    THINGS,
    Action,
    Dice,
    World,
    play,
)
from relational_rnn.tasks.babi.story import Story

Asked = tuple[str, str, Iterable[int]]

CARRY = ("go", "take", "drop")
PASS_ON = ("go", "take", "drop", "give")
TAKE_THERE = {"take": 1.0, "drop": 0.2}
SELDOM_THERE = {"take": 0.2, "drop": 0.2}

COUNTS = ("none", "one", "two", "three")


class WhereIsPerson:
    """Tasks 1 and 6: somebody who moved in the last five statements; supported by their last move."""

    def __init__(self, dice: Dice, yes_no: bool) -> None:
        self.dice, self.yes_no = dice, yes_no
        self.moves: list[tuple[int, str]] = []
        self.last: dict[str, tuple[int, str]] = {}

    def note(self, index: int, action: Action) -> None:
        if action.verb == "go":
            self.moves.append((index, action.who))
            self.last[action.who] = (index, action.what)

    def question(self, now: int) -> Asked | None:
        recent = [who for index, who in self.moves[-RECENT:] if index >= now - RECENT]
        if not recent:
            return None
        who = self.dice.pick(recent)
        index, place = self.last[who]
        if not self.yes_no:
            return f"Where is {who}?", place, (index,)
        if self.dice.chance(0.5):
            return f"Is {who} in the {place}?", "yes", (index,)
        wrong = self.dice.pick([room for room in ROOMS if room != place])
        return f"Is {who} in the {wrong}?", "no", (index,)


class ThingEvents:
    """What tasks 2 and 3 need to know of the things: who touched each last, when, and the moves made with it since."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.last_move: dict[str, tuple[int, str]] = {}
        self.events: list[tuple[int, str]] = []
        self.touched: dict[str, tuple[int, Action]] = {}
        self.dropped_at: dict[str, tuple[int, str] | None] = {}
        self.route: dict[str, list[tuple[int, str]]] = {}
        self.carried: dict[str, list[str]] = {}

    def note(self, index: int, action: Action) -> None:
        who = action.who
        if action.verb == "go":
            self.last_move[who] = (index, action.what)
            for thing in self.carried.get(who, ()):
                self.route[thing].append((index, action.what))
            return
        thing = action.what
        self.events.append((index, thing))
        self.touched[thing] = (index, action)
        if action.verb == "take":
            self.carried.setdefault(who, []).append(thing)
            self.route[thing] = []
        else:
            self.carried[who].remove(thing)
            self.dropped_at[thing] = self.last_move.get(who)

    def recent(self, now: int) -> list[str]:
        """The things touched in the last five statements, each as often as it was."""
        return [thing for index, thing in self.events[-RECENT:] if index >= now - RECENT]


class WhereIsThing(ThingEvents):
    """Task 2: a thing carried somewhere since it was taken, or dropped by somebody whose place was told."""

    def place(self, thing: str) -> tuple[int, int, str] | None:
        index, action = self.touched[thing]
        if action.verb == "take":
            return (index, *self.route[thing][-1]) if self.route[thing] else None
        at = self.dropped_at[thing]
        return None if at is None else (index, *at)

    def question(self, now: int) -> Asked | None:
        known = [(thing, place) for thing in self.recent(now) if (place := self.place(thing)) is not None]
        if not known:
            return None
        thing, (touched, moved, place) = self.dice.pick(known)
        return f"Where is the {thing}?", place, (touched, moved)


class WhereWasThing(ThingEvents):
    """Task 3: where a thing was carried from, before its carrier last came to one of the places on the way."""

    def question(self, now: int) -> Asked | None:
        options = []
        for thing in self.recent(now):
            route = self.route[thing]
            later: set[str] = set()
            for step in range(len(route) - 1, 0, -1):
                place = route[step][1]
                if place not in later:
                    later.add(place)
                    options.append((thing, step))
        if not options:
            return None
        thing, step = self.dice.pick(options)
        (before, answer), (came, place) = self.route[thing][step - 1 : step + 1]
        return f"Where was the {thing} before the {place}?", answer, (self.touched[thing][0], came, before)


class HowMany:
    """Task 7: the number of things somebody has; supported by all they took, dropped, gave or received."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.deeds: list[tuple[int, str]] = []
        self.supports: dict[str, list[int]] = {}
        self.count: dict[str, int] = {}

    def note(self, index: int, action: Action) -> None:
        if action.verb == "go":
            return
        self.deeds.append((index, action.who))
        changes = [(action.who, 1 if action.verb == "take" else -1)]
        if action.verb == "give":
            changes.append((action.to, 1))
        for who, change in changes:
            self.supports.setdefault(who, []).append(index)
            self.count[who] = self.count.get(who, 0) + change

    def question(self, now: int) -> Asked | None:
        recent = [who for index, who in self.deeds[-RECENT:] if index >= now - RECENT]
        if not recent:
            return None
        who = self.dice.pick(recent)
        return f"How many objects is {who} carrying?", COUNTS[self.count[who]], self.supports[who]


class WhatIsCarried:
    """Task 8: the things somebody has, in the order first taken; supported by all they did, thing after thing."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.deeds: list[tuple[int, str]] = []
        self.supports: dict[str, dict[str, list[int]]] = {}
        self.carried: set[tuple[str, str]] = set()

    def note(self, index: int, action: Action) -> None:
        if action.verb == "go":
            return
        who, thing = action.who, action.what
        self.deeds.append((index, who))
        self.supports.setdefault(who, {}).setdefault(thing, []).append(index)
        if action.verb == "take":
            self.carried.add((who, thing))
        else:
            self.carried.remove((who, thing))

    def question(self, now: int) -> Asked | None:
        recent = [who for index, who in self.deeds[-RECENT:] if index >= now - RECENT]
        if not recent:
            return None
        who = self.dice.pick(recent)
        held = [thing for thing in self.supports[who] if (who, thing) in self.carried]
        supports = [index for indices in self.supports[who].values() for index in indices]
        return f"What is {who} carrying?", ",".join(held) or "nothing", supports


def single_supporting_fact(dice: Dice) -> Story:
    """Task 1."""
    world = World(dice, HOUSEHOLD, ROOMS)
    return play(dice, 1, world, ("go",), TAKE_THERE, WhereIsPerson(dice, yes_no=False))


def two_supporting_facts(dice: Dice) -> Story:
    """Task 2."""
    return play(dice, 2, World(dice, HOUSEHOLD, ROOMS, THINGS), CARRY, TAKE_THERE, WhereIsThing(dice))


def three_supporting_facts(dice: Dice) -> Story:
    """Task 3."""
    return play(dice, 3, World(dice, HOUSEHOLD, ROOMS, THINGS), CARRY, SELDOM_THERE, WhereWasThing(dice))


def yes_no_questions(dice: Dice) -> Story:
    """Task 6."""
    world = World(dice, HOUSEHOLD, ROOMS, THINGS)
    return play(dice, 6, world, CARRY, TAKE_THERE, WhereIsPerson(dice, yes_no=True))


def counting(dice: Dice) -> Story:
    """Task 7."""
    return play(dice, 7, World(dice, HOUSEHOLD, ROOMS, THINGS), PASS_ON, TAKE_THERE, HowMany(dice))


def lists_sets(dice: Dice) -> Story:
    """Task 8."""
    return play(dice, 8, World(dice, HOUSEHOLD, ROOMS, THINGS), CARRY, TAKE_THERE, WhatIsCarried(dice))
