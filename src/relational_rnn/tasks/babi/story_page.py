"""A story and a question through a trained story model: what a page about it needs."""

# Shape legend: T statements, A answers, L looks of the question, N slots of M numbers, H heads, K key size

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from relational_rnn._check import InputError, check_choice, check_positive, describe
from relational_rnn.inspection.fast_page import fast_page
from relational_rnn.inspection.opening import slots_opening
from relational_rnn.inspection.page import Around, Page, Section, page, slots_in
from relational_rnn.inspection.statistics import AttentionStatistics, attention_statistics, statistics_section
from relational_rnn.inspection.token_values import TokenValues
from relational_rnn.nn.fast_weight_memory import FastWeightMemory
from relational_rnn.nn.fast_weight_trace import FastWeightTrace
from relational_rnn.nn.relational_memory import RelationalMemory
from relational_rnn.ops.relational_scan import Trace
from relational_rnn.runs import Asked, Example, LoadedRun
from relational_rnn.tasks.babi.answering import Influence, StoryReader, influence, reader_of
from relational_rnn.tasks.babi.batching import EncodedStories
from relational_rnn.tasks.babi.pretrained import pretrained_babi
from relational_rnn.tasks.babi.problem import test_stories
from relational_rnn.tasks.babi.recipes import BabiRun, DataConfig
from relational_rnn.tasks.babi.story import TASK_NAMES, Question, Story

WHERE = "inspect"
INSPECTED = (RelationalMemory, FastWeightMemory)
"""The memories whose stories have a page."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoryTrace:
    """What a model did with a story, as far as it can be seen."""

    statements: tuple[str, ...]
    """The T sentences that it read."""
    question: str
    trace: Trace | FastWeightTrace
    """One sequence of T steps; of fast weights, a batch of one."""
    before: Tensor | None
    """[N, M]: the memory before the first sentence; None for fast weights, whose trace has it."""
    looks: Tensor
    """Where the question looks after each sentence: its attention to the slots [T, L, N], mean over heads; of fast
    weights the keys that it looks for [T, L, H, K]."""
    answers: tuple[str, ...]
    """The A answers that the model knows."""
    probabilities: Tensor
    """[T + 1, A]: of the answers, if the question is asked after the first 0, 1, ..., T sentences."""
    influence: Influence
    """The answer, and what leaving out each sentence does to it."""


def memory_of(reader: StoryReader) -> RelationalMemory | FastWeightMemory:
    """The memory of a reader's model; another core is refused."""
    core = reader.model.core
    if not isinstance(core, INSPECTED):
        problem = "only a relational memory or a fast-weight memory can be looked into"
        hint = "`relational-rnn ask RUN` finds the sentences that matter for every core."
        raise InputError(describe(WHERE, problem, got=f"a model with the core {type(core).__name__}", hint=hint))
    return core


def trace_story(reader: StoryReader, statements: Sequence[str], question: str) -> StoryTrace:
    """Ask a question about a story and keep everything that the memory did, in about T + 3 readings of the story.

    Raises:
        InputError: the model has another memory (see `memory_of`), the story is empty, or a word is unknown.
    """
    core = memory_of(reader)
    if reader.max_sentences is not None:
        statements = statements[-reader.max_sentences :]
    found = influence(reader.together, statements, question)
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
    """The page of a story: what each sentence left in the memory, what the answer was read from and depends on."""
    found = traced.influence
    verdict = "" if right is None else ", which is right" if right == found.answer else f"; right would be {right!r}"
    said = f"The model answers {found.answer!r} with probability {found.probability:.1%}{verdict}."
    words = f"by how much the probability of {found.answer!r} falls (1 = 100 points, a full bar) when it is read "
    words += "without this sentence; less than 0 where it rises"
    left_out = TokenValues("left out", words, [effect.drop for effect in found.effects], most=1)
    around: Around = {
        "lead": [f"Question: {traced.question}", said],
        "answers": dict(zip(traced.answers, traced.probabilities[1:].T.tolist(), strict=True)),
        "right": right,
        "token_values": [left_out],
        "notes": [
            f"The story was read once, and {traced.question!r} asked after every sentence, as if it ended there."
        ],
        "sections": sections,
    }
    if isinstance(traced.trace, FastWeightTrace):
        return fast_page(traced.trace, traced.looks, traced.statements, title=title, **around)
    opening = slots_opening(traced.trace, traced.looks)
    look = {"title": title, "before": traced.before, "opening": opening}
    return page(traced.trace, traced.statements, layout="lines", **look, **around)


def split_text(text: str) -> tuple[tuple[str, ...], str]:
    """A story and its question from one text: sentences end with '.', '!', '?' or a line; the last is the question.

    Raises:
        InputError: the last sentence is no question, or the only one.

    >>> split_text("Mary went home. John left. Where is Mary?")
    (('Mary went home.', 'John left.'), 'Where is Mary?')
    """
    parts = [part.strip() for line in text.splitlines() for part in re.findall(r"[^.!?]*[.!?]|[^.!?]+", line)]
    sentences = [part for part in parts if part.strip(".!? ")]
    if not sentences or not sentences[-1].endswith("?"):
        hint = "write it like 'Mary went home. Where is Mary?'"
        raise InputError(describe(WHERE, "the text must end with a question", got=repr(text), hint=hint))
    if len(sentences) == 1:
        raise InputError(describe(WHERE, "a question needs a story before it", got=repr(text)))
    return tuple(sentences[:-1]), sentences[-1]


def numbered_questions(stories: Sequence[Story]) -> list[tuple[tuple[str, ...], Question]]:
    """All questions of these stories in order, each after the statements before it."""
    return [(story.statements[: question.at], question) for story in stories for question in story.questions]


def worst_questions(reader: StoryReader, stories: Sequence[Story], count: int) -> list[tuple[int, str, float]]:
    """The `count` questions whose right answer is the least probable, the worst first.

    Returns:
        of each its place in `numbered_questions` from 0, the model's answer, and the probability of the right answer, 0
        where the model does not know it.
    """
    check_positive("worst_questions", count=count)
    encoded = EncodedStories(stories, reader.vocabulary, name="the stories", max_sentences=reader.max_sentences)
    device = next(reader.model.parameters()).device
    answered: list[tuple[float, int]] = []
    for first in range(0, len(encoded), 64):
        batch = encoded.batch(range(first, min(first + 64, len(encoded)))).to(device)
        with torch.inference_mode():
            chances = reader.model(batch).softmax(-1)
        known = torch.nn.functional.pad(chances, (0, 1))  # the class after the last stands for unknown answers
        right = known.gather(1, batch.answers[:, None]).squeeze(1).tolist()
        answered += zip(right, chances.argmax(-1).tolist(), strict=True)
    order = sorted(range(len(answered)), key=lambda i: answered[i][0])[:count]
    return [(i, reader.vocabulary.answers[answered[i][1]], answered[i][0]) for i in order]


def inspect_story(run: LoadedRun[BabiRun], asked: Asked) -> Page:
    """The page of a test story of a run, or of a text that ends with a question."""
    if asked.text is not None and asked.task is not None and not asked.statistics:
        raise InputError(describe(WHERE, "--task has no effect with --text and without --statistics"))
    # The model of the package was trained on files that are not there: its examples are generated.
    data = DataConfig() if run.folder == pretrained_babi() else run.config.data
    task = data.tasks[0] if asked.task is None else asked.task
    check_choice(WHERE, "--task", task, data.tasks, hint="these are the tasks of the run")
    needed = asked.text is None or asked.statistics
    stories = test_stories(replace(data, tasks=(task,)))[0][task] if needed else []
    if asked.text is not None:
        (statements, question), right, title = split_text(asked.text), None, f"A look inside {_name(run)}"
    else:
        questions = numbered_questions(stories)
        number = asked.number(len(questions))
        statements, chosen = questions[number - 1]
        question, right, title = chosen.text, chosen.answer, _title(run, task, number)
    reader = reader_of(run)
    traced = trace_story(reader, statements, question)
    sections = []
    if asked.statistics:
        many = story_statistics(reader, stories)  # refuses a memory without slots
        assert isinstance(traced.trace, Trace)
        what = f"the {len(stories):,} test stories of task {task}, each read to its end"
        sections.append(statistics_section(traced.trace, many, what=what))
    return story_page(traced, right=right, title=title, sections=sections)


def worst_stories(run: LoadedRun[BabiRun], count: int) -> list[Example]:
    """The worst test questions of every task, with their pages where the memory has one."""
    reader, found = reader_of(run), []
    for task, stories in test_stories(run.config.data)[0].items():
        questions = numbered_questions(stories)
        for i, answer, chance in worst_questions(reader, stories, count):
            statements, question = questions[i]
            html = None
            if isinstance(run.model.core, INSPECTED):
                traced = trace_story(reader, statements, question.text)
                html = story_page(traced, right=question.answer, title=_title(run, task, i + 1)).html
            found.append(
                Example(
                    group=f"{task} {TASK_NAMES[task]}",
                    number=i + 1,
                    question=question.text,
                    right=question.answer,
                    answer=answer,
                    right_probability=chance,
                    html=html,
                )
            )
    return found


def _name(run: LoadedRun[BabiRun]) -> str:
    return run.folder.resolve().name


def _title(run: LoadedRun[BabiRun], task: int, number: int) -> str:
    return f"A look inside {_name(run)}: task {task}, {TASK_NAMES[task]}, example {number}"
