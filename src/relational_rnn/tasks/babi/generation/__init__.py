"""Our own bAbI: stories of all 20 tasks from a small simulated world, alike the published files and never the same.

The published stories (Weston et al. 2015, arXiv 1502.05698, v1.2) served as the model: their sentences, what is asked
when, and which statements support an answer. Questions, answers and supports follow from the world, not from tables.
"""

from __future__ import annotations

from collections.abc import Callable

from relational_rnn._check import InputError, check_positive, describe
from relational_rnn.tasks.babi.generation import carrying, directions, giving, kinds, motives, moving, space
from relational_rnn.tasks.babi.generation.world import Dice
from relational_rnn.tasks.babi.story import Story

__all__ = ["generate"]

_TELLERS: dict[int, Callable[[Dice], Story]] = {
    1: carrying.single_supporting_fact,
    2: carrying.two_supporting_facts,
    3: carrying.three_supporting_facts,
    4: directions.two_arg_relations,
    5: giving.three_arg_relations,
    6: carrying.yes_no_questions,
    7: carrying.counting,
    8: carrying.lists_sets,
    9: moving.simple_negation,
    10: moving.indefinite_knowledge,
    11: moving.basic_coreference,
    12: moving.conjunction,
    13: moving.compound_coreference,
    14: moving.time_reasoning,
    15: kinds.basic_deduction,
    16: kinds.basic_induction,
    17: space.positional_reasoning,
    18: space.size_reasoning,
    19: directions.path_finding,
    20: motives.agents_motivations,
}


def generate(task: int, seed: int, stories: int | None = None, *, questions: int | None = None) -> list[Story]:
    """Make stories of one task; the same task and seed give the same stories, on any machine.

    Asked for more, it makes the same stories and then further ones.

    Args:
        task: 1 to 20.
        seed: any whole number.
        stories: how many stories. Give either this or `questions`.
        questions: how many questions in all; the last story ends with the last of them.

    Raises:
        InputError: the task is not one of the 20, the seed is not a whole number, a count is below 1, or not exactly
            one of `stories` and `questions` is given.

    >>> story = generate(1, seed=0, stories=1)[0]
    >>> len(story.questions)
    5
    >>> sum(len(story.questions) for story in generate(17, seed=0, questions=100))
    100
    """
    if isinstance(task, bool) or not isinstance(task, int) or task not in _TELLERS:
        raise InputError(describe("generate", "there is no such task", got=repr(task), expected="1 to 20"))
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise InputError(describe("generate", "seed must be a whole number", got=repr(seed)))
    if (stories is None) == (questions is None):
        got = "neither" if stories is None else "both"
        raise InputError(describe("generate", "give either stories or questions", got=got))
    dice = Dice(f"babi task {task} seed {seed}")
    tell = _TELLERS[task]
    if stories is not None:
        check_positive("generate", stories=stories)
        return [tell(dice) for _ in range(stories)]
    assert questions is not None
    check_positive("generate", questions=questions)
    made: list[Story] = []
    while questions > 0:
        story = tell(dice)
        if len(story.questions) > questions:
            kept = story.questions[:questions]
            story = Story(task, story.statements[: kept[-1].at], kept)
        made.append(story)
        questions -= len(story.questions)
    return made
