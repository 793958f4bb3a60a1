"""Which sentences an answer rests on, by leaving each of them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from relational_rnn._check import InputError, describe

Probabilities = Mapping[str, float]
"""Answer to its probability."""
AnswerQuestion = Callable[[Sequence[str], str], Probabilities]
"""Maps the statements of a story and a question to the probability of every possible answer."""
AnswerTogether = Callable[[Sequence[Sequence[str]], str], Sequence[Probabilities]]
"""The same for several stories and one question."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """What changes when one sentence is left out."""

    index: int
    """Place of the sentence in the story, from 0."""
    sentence: str
    """The sentence itself."""
    drop: float
    """Probability of the full story's answer minus its probability without the sentence; negative if it rises."""
    answer_without: str
    """The most probable answer without the sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Influence:
    """An answer, its runner-up, and the effect of every sentence, in story order."""

    answer: str
    probability: float
    runner_up: str | None
    """The second most probable answer, or None where only one answer exists."""
    runner_up_probability: float
    effects: tuple[Effect, ...]

    def strongest(self, least: float = 0.0) -> list[Effect]:
        """Sentences whose absence moves the answer's probability by at least `least`, the largest drop first.

        Drops that are equal to a tenth of a point, as they are shown, stand in the order of the story.
        """
        kept = [effect for effect in self.effects if abs(effect.drop) >= least]
        return sorted(kept, key=lambda effect: (-round(effect.drop, 3), effect.index))


def rank(probabilities: Probabilities) -> list[tuple[str, float]]:
    """Answers with their probabilities, the most probable first; ties in alphabetical order.

    >>> rank({"hallway": 0.25, "kitchen": 0.5, "garden": 0.25})
    [('kitchen', 0.5), ('garden', 0.25), ('hallway', 0.25)]
    """
    return sorted(probabilities.items(), key=lambda pair: (-pair[1], pair[0]))


def influence(
    answer_question: AnswerQuestion,
    statements: Sequence[str],
    question: str,
    *,
    together: AnswerTogether | None = None,
) -> Influence:
    """Answer a question, then answer it again once per sentence with that sentence left out.

    For a story of n sentences s_1..s_n with answer a = argmax p(. | s_1..s_n), the drop of sentence i is
    p(a | all sentences) - p(a | all but s_i). Costs n + 1 calls of `answer_question`; nothing is trained.

    Args:
        answer_question: any callable from (statements, question) to the probability of every answer. It is called
            with an empty list when the story has a single sentence.
        statements: the story, at least one sentence.
        question: the question.
        together: answers the question for the story and all those with a sentence left out at once, instead of
            `answer_question`, where that is faster (`StoryReader.together`).

    Raises:
        InputError: when the story is empty, or the callable knows no answer at all.

    Example:
        >>> def where(statements, question):
        ...     return {"kitchen": 0.9, "garden": 0.1} if "Mary is in the kitchen." in statements else {"garden": 1.0}
        >>> found = influence(where, ["Mary is in the kitchen.", "John is in the garden."], "Where is Mary?")
        >>> found.answer, [round(effect.drop, 2) for effect in found.effects]
        ('kitchen', [0.9, 0.0])
    """
    if not statements:
        problem, hint = "a question needs a story before it", "give at least one statement first"
        raise InputError(describe("influence", problem, got=repr(question), hint=hint))
    stories = [statements, *([*statements[:index], *statements[index + 1 :]] for index in range(len(statements)))]
    judged = [answer_question(s, question) for s in stories] if together is None else together(stories, question)
    if not all(judged):
        raise InputError(describe("influence", "no answer has a probability", got="an empty mapping"))
    ranked = rank(judged[0])
    answer, probability = ranked[0]
    runner_up, runner_up_probability = ranked[1] if len(ranked) > 1 else (None, 0.0)
    effects = [
        Effect(
            index=index,
            sentence=sentence,
            drop=probability - without.get(answer, 0.0),
            answer_without=rank(without)[0][0],
        )
        for index, (sentence, without) in enumerate(zip(statements, judged[1:], strict=True))
    ]
    return Influence(
        answer=answer,
        probability=probability,
        runner_up=runner_up,
        runner_up_probability=runner_up_probability,
        effects=tuple(effects),
    )
