"""Task 5: people give things to one another; who gave what to whom."""

from __future__ import annotations

from collections.abc import Iterable

from relational_rnn.tasks.babi.generation.world import RECENT, ROOMS, THINGS, Action, Dice, World, play
from relational_rnn.tasks.babi.story import Story

PEOPLE = ("Mary", "Fred", "Bill", "Jeff")


class WhoGaveWhat:
    """The last time each thing was given, if that is among the last five statements."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.last: dict[str, tuple[int, Action]] = {}
        self.between: dict[tuple[str, str], tuple[int, str]] = {}

    def note(self, index: int, action: Action) -> None:
        if action.verb == "give":
            self.last[action.what] = (index, action)
            self.between[action.who, action.to] = (index, action.what)

    def question(self, now: int) -> tuple[str, str, Iterable[int]] | None:
        recent = [(index, action) for index, action in self.last.values() if index >= now - RECENT]
        if not recent:
            return None
        index, (_, giver, thing, receiver) = self.dice.pick(recent)
        subject = self.dice.pick(("thing", "giver", "receiver"))
        if subject == "thing":
            # Of several things that passed between the two, the last is meant.
            index, thing = self.between[giver, receiver]
            return f"What did {giver} give to {receiver}?", thing, (index,)
        fully = self.dice.chance(0.5)
        if subject == "giver":
            return f"Who gave the {thing}{f' to {receiver}' if fully else ''}?", giver, (index,)
        if fully:
            return f"Who did {giver} give the {thing} to?", receiver, (index,)
        return f"Who received the {thing}?", receiver, (index,)


def three_arg_relations(dice: Dice) -> Story:
    """Task 5."""
    world = World(dice, PEOPLE, ROOMS, THINGS)
    return play(dice, 5, world, ("go", "take", "drop", "give"), {"take": 1.0, "drop": 0.2}, WhoGaveWhat(dice))
