"""Tasks 9 to 14: where people are, told with negation, doubt, pronouns, in pairs, or out of order in time."""

from __future__ import annotations

from relational_rnn.tasks.babi.generation.world import GO, HOUSEHOLD, NEIGHBOURS, RECENT, ROOMS, TOWN, Book, Dice
from relational_rnn.tasks.babi.story import Story

THEN = ("After that", "Afterwards", "Following that", "Then")
PRONOUN = {"John": "he", "Daniel": "he", "Mary": "she", "Sandra": "she"}
TIMES = ("yesterday", "this morning", "this afternoon", "this evening")


def elsewhere(dice: Dice, places: tuple[str, ...], *left: str) -> str:
    """A place that is none of those left."""
    return dice.pick([place for place in places if place not in left])


def simple_negation(dice: Dice) -> Story:
    """Task 9: told either where somebody is now, or only that they left the place where they were."""
    book = Book(9)
    place = {person: dice.pick(ROOMS) for person in HOUSEHOLD}
    known: dict[str, tuple[int, str, bool]] = {}  # statement, place named, whether they are there
    order: list[str] = []
    while len(book.questions) < 5:
        for _ in range(2):
            who = dice.pick(HOUSEHOLD)
            was, now = place[who], elsewhere(dice, ROOMS, place[who])
            place[who] = now
            order.append(who)
            manner = dice.pick(("go", "go", "is", "left"))
            if manner == "left":
                index = book.tell(f"{who} is {dice.pick(('no longer', 'not'))} in the {was}.")
                known[who] = (index, was, False)
            else:
                index = book.tell(f"{who} {dice.pick(GO)} the {now}." if manner == "go" else f"{who} is in the {now}.")
                known[who] = (index, now, True)
        who = dice.pick(order[-RECENT:])
        index, named, there = known[who]
        if not there:
            book.ask(f"Is {who} in the {named}?", "no", (index,))
        elif dice.chance(0.5):
            book.ask(f"Is {who} in the {named}?", "yes", (index,))
        else:
            book.ask(f"Is {who} in the {elsewhere(dice, ROOMS, named)}?", "no", (index,))
    return book.story()


def indefinite_knowledge(dice: Dice) -> Story:
    """Task 10: sometimes two places are named. As published, the two may be one and the same: still only a "maybe"."""
    book = Book(10)
    place = {person: dice.pick(TOWN) for person in NEIGHBOURS}
    known: dict[str, tuple[int, tuple[str, ...]]] = {}
    order: list[str] = []
    while len(book.questions) < 5:
        for _ in range(2):
            who = dice.pick(NEIGHBOURS)
            now = place[who] = elsewhere(dice, TOWN, place[who])
            order.append(who)
            manner = dice.pick(("go", "go", "is", "either"))
            if manner == "either":
                pair = (now, dice.pick(TOWN))
                pair = pair if dice.chance(0.5) else pair[::-1]
                known[who] = (book.tell(f"{who} is either in the {pair[0]} or the {pair[1]}."), pair)
            else:
                index = book.tell(f"{who} {dice.pick(GO)} the {now}." if manner == "go" else f"{who} is in the {now}.")
                known[who] = (index, (now,))
        who = dice.pick(order[-RECENT:])
        index, named = known[who]
        asked = place[who] if dice.chance(0.5) else elsewhere(dice, TOWN, place[who])
        answer = "no" if asked not in named else "yes" if len(named) == 1 else "maybe"
        book.ask(f"Is {who} in the {asked}?", answer, (index,))
    return book.story()


def basic_coreference(dice: Dice) -> Story:
    """Task 11: somebody moves, then "he" or "she" moves on."""
    return _two_moves(dice, 11, pairs=False)


def conjunction(dice: Dice) -> Story:
    """Task 12: two people move together."""
    book = Book(12)
    place = {person: dice.pick(ROOMS) for person in HOUSEHOLD}
    known: dict[str, int] = {}
    order: list[str] = []
    while len(book.questions) < 5:
        for _ in range(2):
            pair = _pair(dice)
            now = elsewhere(dice, ROOMS, place[pair[0]], place[pair[1]])
            index = book.tell(f"{pair[0]} and {pair[1]} {dice.pick(GO)} the {now}.")
            for who in pair:
                place[who], known[who] = now, index
            order.extend(pair)
        who = dice.pick(order[-RECENT:])
        book.ask(f"Where is {who}?", place[who], (known[who],))
    return book.story()


def compound_coreference(dice: Dice) -> Story:
    """Task 13: two people move together, then "they" move on."""
    return _two_moves(dice, 13, pairs=True)


def _pair(dice: Dice) -> tuple[str, str]:
    first = dice.pick(HOUSEHOLD)
    return first, dice.pick([person for person in HOUSEHOLD if person != first])


def _two_moves(dice: Dice, task: int, *, pairs: bool) -> Story:
    """Tasks 11 and 13: a question follows every such pair of statements and is supported by both of them."""
    book = Book(task)
    place = {person: dice.pick(ROOMS) for person in HOUSEHOLD}
    known: dict[str, int] = {}
    order: list[str] = []
    while len(book.questions) < 5:
        group = _pair(dice) if pairs else (dice.pick(HOUSEHOLD),)
        first = elsewhere(dice, ROOMS, *(place[who] for who in group))
        index = book.tell(f"{' and '.join(group)} {dice.pick(GO)} the {first}.")
        second = elsewhere(dice, ROOMS, first)
        pronoun = "they" if pairs else PRONOUN[group[0]]
        book.tell(f"{dice.pick(THEN)} {pronoun} {dice.pick(GO)} the {second}.")
        for who in group:
            place[who], known[who] = second, index
        order.extend(group * 2)
        who = dice.pick(order[-RECENT:])
        book.ask(f"Where is {who}?", place[who], (known[who], known[who] + 1))
    return book.story()


def time_reasoning(dice: Dice) -> Story:
    """Task 14: each person's moves have a time of day; what happened between two questions is told out of order."""
    book = Book(14)
    visits: dict[str, list[str]] = {person: [] for person in NEIGHBOURS}
    told: dict[tuple[str, int], int] = {}  # (person, time) -> statement
    happened: list[tuple[str, int]] = []
    begun = 0  # the first event since the last question
    while len(book.questions) < 5:
        for _ in range(2):
            who = dice.pick([person for person in NEIGHBOURS if len(visits[person]) < len(TIMES)])
            visits[who].append(elsewhere(dice, TOWN, *visits[who][-1:]))
            happened.append((who, len(visits[who]) - 1))
        options = []
        for who, time in happened[-RECENT:]:
            if time > 0 and visits[who][time] not in visits[who][time + 1 :]:
                options.append((who, time))
        if not options:
            continue
        for who, time in _cycled(dice, happened[begun:]):
            told[who, time] = book.tell(_timed(dice, who, visits[who][time], TIMES[time]))
        begun = len(happened)
        who, time = dice.pick(options)
        supports = (told[who, time], told[who, time - 1])
        book.ask(f"Where was {who} before the {visits[who][time]}?", visits[who][time - 1], supports)
    return book.story()


def _timed(dice: Dice, who: str, place: str, time: str) -> str:
    move = f"{who} {dice.pick(GO)} the {place}"
    return f"{time.capitalize()} {move}." if dice.chance(0.5) else f"{move} {time}."


def _cycled(dice: Dice, events: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """The events in an order that leaves none in its place: all orders of one cycle are equally likely (Sattolo)."""
    events = list(events)
    for last in range(len(events) - 1, 0, -1):
        other = int(dice.draw() * last)
        events[last], events[other] = events[other], events[last]
    return events
