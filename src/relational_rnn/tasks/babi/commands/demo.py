"""relational-rnn demo"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from relational_rnn._check import need_extra
from relational_rnn.console.boundary import KEPT, stopped_with
from relational_rnn.console.tables import shown, text_table
from relational_rnn.nn.cores import CORES
from relational_rnn.reports import write_report
from relational_rnn.runs import CoreName, compare, comparison, load
from relational_rnn.tasks.babi.answering import StoryReader, rank, reader_of
from relational_rnn.tasks.babi.problem import test_stories
from relational_rnn.tasks.babi.recipes import BabiRun, demo
from relational_rnn.tasks.babi.story import TASK_NAMES, Story
from relational_rnn.training.progress import clock
from relational_rnn.training.run_folder import usable_cores

EXAMPLES = ("relational-rnn demo",)
DEMO_CORES: tuple[CoreName, ...] = ("rmc", "competitive", "fastweights", "lstm", "attention", "transformer")
SHOWN: tuple[CoreName, ...] = ("rmc", "competitive", "fastweights")
"""Those that `inspect` shows; it is the best of them that the end of the demo leads to."""
STORY_TASKS = (1, 12, 15)
"""The tasks of the three stories that are answered at the end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """Train a relational memory, one whose slots compete for the input, fast weights, an LSTM, an LSTM with attention
    and a Transformer on generated bAbI stories, one model each for all 20 tasks and with equal parameters. Compare what
    they have learned, and let them answer three stories.

    Stopped with Ctrl-C and called again, it goes on where it was. It prints what it measured, whoever is ahead.
    """

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/demo")
    """Gets a run folder for each model, and the report."""


def run(arguments: Arguments) -> None:
    started = time.monotonic()
    # Said before the minutes of training, not after them.
    need_extra("matplotlib", "report", "the report at the end of the demo")
    base = demo()
    jobs = min(len(DEMO_CORES), usable_cores())  # each trains with one thread
    at_a_time = "one after the other" if jobs == 1 else f"{jobs} at a time"
    print(
        f"{len(DEMO_CORES)} models, {at_a_time}, each {base.loop.steps:,} steps on {len(base.data.tasks)} tasks of "
        f"{base.data.train_questions:,} generated questions; everything is kept in {arguments.out}",
        flush=True,
    )
    with stopped_with(KEPT):
        found = compare(
            base,
            DEMO_CORES,
            [base.seed],
            arguments.out,
            jobs=jobs,
            on_run=lambda path, e: print(f"{path}: {e.line()}", flush=True),
        )
    print(f"\n{text_table(*comparison(list(found.values())))}\n")
    readers = {e.core: reader_of(load(path)) for path, e in found.items()}
    for story in demo_stories(base):
        print(answered_story(story, readers))
    page = write_report(
        list(found), arguments.out / "report", title="Relational memory and its rivals on generated bAbI"
    )
    best = max((path for path, e in found.items() if e.core in SHOWN), key=lambda path: found[path].mean_accuracy)
    print(f"report: {page}")
    print(f"ask it yourself: {shown('relational-rnn', 'ask', best)}")
    print(f"look inside: {shown('relational-rnn', 'inspect', best, '--task', base.data.tasks[0])}")
    print(f"time: {clock(time.monotonic() - started)}")


def demo_stories(base: BabiRun) -> list[Story]:
    """One story of each of STORY_TASKS that no run of `base` was trained or measured on."""
    data = replace(base.data, tasks=STORY_TASKS, seed=base.data.seed + 1, test_questions=20)
    return [stories[0] for stories in test_stories(data)[0].values()]


def answered_story(story: Story, readers: Mapping[str, StoryReader]) -> str:
    """The story up to its last question, the right answer, and what each model answers with which probability."""
    question = story.questions[-1]
    statements = story.statements[: question.at]
    lines = [f"A story of task {story.task}, {TASK_NAMES[story.task]}:"]
    lines += [f"  {statement}" for statement in statements]
    lines += [f"{question.text}  Right: {question.answer}"]
    width = max(len(CORES[core].label) for core in readers)
    for core, reader in readers.items():
        answer, probability = rank(reader(statements, question.text))[0]
        verdict = "right" if answer == question.answer else "wrong"
        lines.append(f"  {CORES[core].label:<{width}}  {answer}  {probability:.1%}  {verdict}")
    return "\n".join(lines) + "\n"
