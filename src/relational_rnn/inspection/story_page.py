"""A story and a question through a trained story model: what a page about it needs."""

# Shape legend: T statements, A answers, L looks of the question, N slots of M numbers, H heads, K key size

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from relational_rnn._check import InputError, describe
from relational_rnn.inspection.answering import StoryReader
from relational_rnn.inspection.choosing import WHERE, check_example, slots_in
from relational_rnn.inspection.fast_page import fast_page
from relational_rnn.inspection.influence import Influence, influence
from relational_rnn.inspection.opening import slots_opening
from relational_rnn.inspection.page import Around, Page, Section, page
from relational_rnn.inspection.statistics import AttentionStatistics, attention_statistics
from relational_rnn.inspection.token_values import TokenValues
from relational_rnn.nn.fast_weight_memory import FastWeightMemory
from relational_rnn.nn.fast_weight_trace import FastWeightTrace
from relational_rnn.nn.relational_memory import RelationalMemory
from relational_rnn.ops.relational_scan import Trace
from relational_rnn.tasks.babi.story import Question, Story

INSPECTED = (RelationalMemory, FastWeightMemory)
"""The memories whose stories have a page."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoryTrace:
    """What a model did with a story, as far as it can be seen."""

    statements: tuple[str, ...]
    """The sentences that it read, T."""
    question: str
    trace: Trace | FastWeightTrace
    """Of the sentences, one sequence of T steps; of fast weights, a batch of one."""
    before: Tensor | None
    """[N, M]: the memory before the first sentence; None for fast weights, whose trace has it."""
    looks: Tensor
    """Where every look of the question goes, were it asked after each sentence: attention to the slots [T, L, N], mean
    over heads; of fast weights the key that it looks for, [T, L, H, K]."""
    answers: tuple[str, ...]
    """Every answer that the model knows, A."""
    probabilities: Tensor
    """[T + 1, A]: of the answers, were the question asked after the first 0, 1, ..., T sentences."""
    influence: Influence
    """The answer, and what leaving out each sentence does to it."""


def memory_of(reader: StoryReader) -> RelationalMemory | FastWeightMemory:
    """The memory of a reader's model.

    Raises:
        InputError: the model has another core.
    """
    core = reader.model.core
    if not isinstance(core, INSPECTED):
        raise InputError(
            describe(
                WHERE,
                "only a relational memory or a fast-weight memory can be looked into",
                got=f"a model with the core {type(core).__name__}",
                hint="`relational-rnn ask RUN` finds the sentences that matter for every core.",
            )
        )
    return core


def trace_story(reader: StoryReader, statements: Sequence[str], question: str) -> StoryTrace:
    """Ask a question about a story and keep everything that the memory did. Costs about T + 3 readings of the story.

    Raises:
        InputError: the model has another memory (see `memory_of`), the story is empty, or a word is unknown.
    """
    core = memory_of(reader)
    if reader.max_sentences is not None:
        statements = statements[-reader.max_sentences :]
    found = influence(reader, statements, question, together=reader.together)
    batch = reader.batch([statements], question)
    model, steps = reader.model, len(statements)
    with torch.no_grad():
        sentences, asked = model.encoder.statements(batch.statements), model.encoder.questions(batch.questions)
        after = torch.arange(steps + 1, device=asked.device)
        states = core.snapshots(sentences, torch.zeros_like(after), after)
        logits, seen = model.head.looks(asked.expand(steps + 1, -1), states)
        looks = torch.stack([where[1:] for where in seen], 1).cpu()  # [T, L, heads, rows or key]
        if isinstance(core, FastWeightMemory):
            trace, before = core.trace(sentences), None
        else:
            trace = core.trace(sentences).map(lambda tensor: tensor[0].cpu())
            before, looks = core.rows(core.initial_state(1))[0][0], looks.mean(2)
    return StoryTrace(
        statements=tuple(statements),
        question=question,
        trace=trace,
        before=before,
        looks=looks,
        answers=reader.vocabulary.answers,
        probabilities=logits.softmax(-1).double().cpu(),
        influence=found,
    )


def story_statistics(reader: StoryReader, stories: Sequence[Story], *, at_once: int = 32) -> AttentionStatistics:
    """The statistics of many stories, each read to its end, `at_once` at a time.

    Raises:
        InputError: the model has no relational memory, or there is no story.
    """
    core = slots_in(memory_of(reader), "only a relational memory has attention and gates to be counted")

    def traces() -> Iterator[tuple[Trace, Tensor]]:
        ordered = sorted(stories, key=lambda story: len(story.statements))
        for first in range(0, len(ordered), at_once):
            some = ordered[first : first + at_once]
            batch = reader.batch([story.statements for story in some], [story.questions[-1].text for story in some])
            with torch.no_grad():
                sentences = reader.model.encoder.statements(batch.statements)
                yield core.trace(sentences, lengths=batch.lengths), batch.lengths

    return attention_statistics(traces())


def story_page(traced: StoryTrace, *, right: str | None = None, title: str, sections: Sequence[Section] = ()) -> Page:
    """The page of a story: which part of the memory took which sentence and which the answer was read from, then the
    answer as it evolves and what it depends on."""
    found = traced.influence
    verdict = "" if right is None else ", which is right" if right == found.answer else f"; right would be {right!r}"
    lead = [
        f"Question: {traced.question}",
        f"The model answers {found.answer!r} with probability {found.probability:.1%}{verdict}.",
    ]
    left_out = TokenValues(
        name="left out",
        description=f"by how much the probability of {found.answer!r} falls (1 = 100 points) when the story is read "
        "without this sentence; less than 0 where it rises; a full bar is 1",
        values=[effect.drop for effect in found.effects],
        most=1,
    )
    notes = [f"The story was read once, and {traced.question!r} asked after every sentence, as if it ended there."]
    around: Around = {
        "lead": lead,
        "answers": dict(zip(traced.answers, traced.probabilities[1:].T.tolist(), strict=True)),
        "right": right,
        "token_values": [left_out],
        "notes": notes,
        "sections": sections,
    }
    if isinstance(traced.trace, FastWeightTrace):
        return fast_page(traced.trace, traced.looks, traced.statements, title=title, **around)
    opening = slots_opening(traced.trace, traced.looks)
    return page(
        traced.trace,
        traced.statements,
        title=title,
        before=traced.before,
        layout="lines",
        opening=opening,
        **around,
    )


def split_text(text: str) -> tuple[tuple[str, ...], str]:
    """A story and its question from one text: sentences end with '.', '!', '?' or a line; the last is the question.

    Raises:
        InputError: no sentence before the question, or the text does not end with a question.

    >>> split_text("Mary went home. John left. Where is Mary?")
    (('Mary went home.', 'John left.'), 'Where is Mary?')
    """
    sentences: list[str] = []
    for line in text.splitlines():
        sentence = ""
        for letter in line:
            sentence += letter
            if letter in ".!?":
                sentences.append(sentence.strip())
                sentence = ""
        sentences.append(sentence.strip())
    sentences = [sentence for sentence in sentences if sentence.strip(".!? ")]
    if not sentences or not sentences[-1].endswith("?"):
        hint = "write it like 'Mary went home. Where is Mary?'"
        raise InputError(describe(WHERE, "the text must end with a question", got=repr(text), hint=hint))
    if len(sentences) == 1:
        raise InputError(describe(WHERE, "a question needs a story before it", got=repr(text)))
    return tuple(sentences[:-1]), sentences[-1]


def numbered_question(stories: Sequence[Story], number: int) -> tuple[tuple[str, ...], Question]:
    """Question `number` (from 1) of all questions of these stories in order, and the statements before it.

    Raises:
        InputError: there is no such question.
    """
    questions = [(story, question) for story in stories for question in story.questions]
    check_example(number, len(questions))
    story, question = questions[number - 1]
    return story.statements[: question.at], question
