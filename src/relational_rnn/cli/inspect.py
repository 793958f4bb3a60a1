"""relational-rnn inspect"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from relational_rnn._check import InputError, check_choice, describe
from relational_rnn.cli.parsing import parse_arguments
from relational_rnn.inspection import (
    Page,
    StoryReader,
    attention_statistics,
    farthest_page,
    language_page,
    statistics_section,
)
from relational_rnn.inspection.story_page import (
    numbered_question,
    split_text,
    story_page,
    story_statistics,
    trace_story,
)
from relational_rnn.inspection.text_trace import memory_of_layer, pieces_of, text_statistics, trace_text
from relational_rnn.ops.relational_scan import Trace
from relational_rnn.runs import LoadedRun, load
from relational_rnn.tasks.babi.pretrained import pretrained_babi
from relational_rnn.tasks.babi.problem import test_stories
from relational_rnn.tasks.babi.recipes import BabiRun, DataConfig
from relational_rnn.tasks.babi.story import TASK_NAMES
from relational_rnn.tasks.generated import split_batches
from relational_rnn.tasks.language.problem import read_corpus
from relational_rnn.tasks.language.recipes import LanguageRun
from relational_rnn.tasks.nth_farthest import NthFarthestRun

EXAMPLES = (
    "relational-rnn inspect --pretrained --text 'Mary went to the garden. John left. Where is Mary?'",
    "relational-rnn inspect runs/demo/rmc-0 --task 2 --example 7 -o story.html",
    "relational-rnn inspect runs/demo/rmc-0 --text 'Mary went to the garden. John left. Where is Mary?'",
    "relational-rnn inspect runs/tiny-shakespeare/rmc-0 --example 5 --statistics",
)
PIECES = 50
"""Of the test text, for its statistics."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """Make one HTML page that shows what the memory of a trained run takes, keeps and forgets along a story.

    The page needs no network and no other file. A story's page opens on which slot took which sentence and which slot
    the answer was read from; of fast weights, on what each sentence wrote and which one the answer was read from. Then
    it shows the answer's probability as the story goes on, how much the answer depends on each sentence, and of slots
    every step: attention, gates, the memory and its change; of a language model, every token with its surprise and the
    memory's reaction.
    """

    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]")] = None
    """Folder of a trained run: on babi with the core rmc, competitive or fastweights, on nth-farthest or language with
    rmc or competitive."""
    pretrained: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Instead of a run, the memory that comes with the package, on bAbI; its examples are generated stories."""
    task: Annotated[int | None, tyro.conf.arg(metavar="K")] = None
    """bAbI only: task of the example; by default the first one of the run."""
    example: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Which question of the task's test stories, which test sequence, or which piece of the test text (of 200 tokens),
    counted from 1; by default the first."""
    text: str | None = None
    """bAbI: a story and a question of your own, in quotes, instead of an example. Language: a text of your own."""
    statistics: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Add what the attention does over all test stories of the task, the batch of the test sequence, or the first 50
    pieces of the test text, beside this one; slots only."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = Path("inspect.html")
    """The page; an older one is replaced."""


def parse(args: Sequence[str]) -> Arguments:
    arguments = parse_arguments(Arguments, args, command="inspect", examples=EXAMPLES)
    if arguments.text is not None and arguments.example is not None:
        raise InputError(describe("inspect", "--text and --example exclude each other"))
    if arguments.pretrained == (arguments.run is not None):
        problem = "name one thing to look into: the folder of a run, or --pretrained"
        raise InputError(describe("inspect", problem, got="both" if arguments.pretrained else "neither"))
    return arguments


def run(arguments: Arguments) -> None:
    loaded = load(arguments.run or pretrained_babi())
    pages = {"babi": inspect_babi, "nth-farthest": inspect_farthest, "language": inspect_language}
    if loaded.workload.name not in pages:
        hint = "in Python, relational_rnn.inspection.page shows the trace of any sequence"
        problem = f"only runs on {', '.join(pages)} can be inspected"
        raise InputError(describe("inspect", problem, got=f"a run on {loaded.workload.name}", hint=hint))
    pages[loaded.workload.name](arguments, loaded)


def inspect_babi(arguments: Arguments, loaded: LoadedRun[BabiRun]) -> None:
    """A story of a run on bAbI."""
    if arguments.text is not None and arguments.task is not None and not arguments.statistics:
        raise InputError(describe("inspect", "--task has no effect with --text and without --statistics"))
    reader = StoryReader(loaded.model, loaded.vocabulary, max_sentences=loaded.config.data.max_sentences)
    name = loaded.folder.resolve().name
    data = DataConfig() if arguments.pretrained else loaded.config.data
    task = data.tasks[0] if arguments.task is None else arguments.task
    check_choice("inspect", "--task", task, data.tasks, hint="these are the tasks of the run")
    needed = arguments.text is None or arguments.statistics
    stories = test_stories(dataclasses.replace(data, tasks=(task,)))[0][task] if needed else []
    if arguments.text is not None:
        (statements, question), right = split_text(arguments.text), None
        title = f"A look inside {name}"
    else:
        number = 1 if arguments.example is None else arguments.example
        statements, asked = numbered_question(stories, number)
        question, right = asked.text, asked.answer
        title = f"A look inside {name}: task {task}, {TASK_NAMES[task]}, example {number}"
    traced = trace_story(reader, statements, question)
    sections = []
    if arguments.statistics:
        what = f"the {len(stories):,} test stories of task {task}, each read to its end"
        many = story_statistics(reader, stories)  # refuses a memory without slots
        assert isinstance(traced.trace, Trace)
        one = attention_statistics([(traced.trace.map(lambda tensor: tensor[None]), None)])
        sections.append(statistics_section(one, many, what=what))
    save(story_page(traced, right=right, title=title, sections=sections), arguments.out)


def inspect_farthest(arguments: Arguments, loaded: LoadedRun[NthFarthestRun]) -> None:
    """A test sequence of a run on N-th farthest."""
    kind = loaded.config.task_name
    refuse(arguments, kind, "task", "text")
    number = 1 if arguments.example is None else arguments.example
    if not 1 <= number <= loaded.config.test_samples:
        expected = f"1 to {loaded.config.test_samples:,}"
        raise InputError(describe("inspect", "there is no such example", got=number, expected=expected))
    place, row = divmod(number - 1, loaded.config.batch_size)
    batch = split_batches(loaded.config, "test")[place]
    title = f"A look inside {loaded.folder.resolve().name}: {kind}, example {number}"
    task = loaded.config.data
    before = place * loaded.config.batch_size
    shown = farthest_page(
        loaded.model, task, batch, row + 1, title=title, statistics=arguments.statistics, before=before
    )
    save(shown, arguments.out)


def inspect_language(arguments: Arguments, loaded: LoadedRun[LanguageRun]) -> None:
    """A piece of a language run's test text, read with all of its document before it, or a text of one's own."""
    refuse(arguments, "language", "task")
    model, vocabulary = loaded.model, loaded.vocabulary
    memory_of_layer(model, None)  # refused before a text is read
    name = loaded.folder.resolve().name
    text = read_corpus(loaded.config).test if arguments.text is None or arguments.statistics else None
    if arguments.text is not None:
        traced = trace_text(model, vocabulary, vocabulary.encode(arguments.text, where="--text"))
        title = f"A look inside {name}"
    else:
        assert text is not None
        pieces = pieces_of(text)
        number = 1 if arguments.example is None else arguments.example
        if not 1 <= number <= len(pieces):
            expected = f"1 to {len(pieces):,}"
            raise InputError(describe("inspect", "there is no such example", got=number, expected=expected))
        piece = pieces[number - 1]
        numbers, context = text.numbers[piece.start : piece.end], text.numbers[piece.document : piece.start]
        traced = trace_text(model, vocabulary, numbers, context=context)
        title = f"A look inside {name}: tokens {piece.start + 1:,} to {piece.end:,} of the test text"
    sections = []
    if arguments.statistics:
        assert text is not None
        pieces = pieces_of(text)[:PIECES]
        one = attention_statistics([(traced.trace.map(lambda tensor: tensor[None]), None)])
        many = text_statistics(model, text, pieces)
        sections.append(statistics_section(one, many, what=f"the first {len(pieces):,} pieces of the test text"))
    bits = [value for value in traced.surprise if value is not None]
    lead = [f"Mean surprise: {sum(bits) / len(bits):.2f} bits per token."] if bits else []
    notes = ["The memory shown is that of the top layer."] if len(model.cores) > 1 else []
    shown = language_page(
        traced.trace,
        traced.tokens,
        traced.surprise,
        title=title,
        lead=lead,
        before=traced.before,
        notes=notes,
        sections=sections,
    )
    save(shown, arguments.out)


def refuse(arguments: Arguments, kind: str, *names: str) -> None:
    """Options that would have no effect on a run of this kind."""
    for name in names:
        if getattr(arguments, name) is not None:
            raise InputError(describe("inspect", f"--{name} has no effect: the run is on {kind}"))


def save(shown: Page, path: Path) -> None:
    """Write the page and say where it is and how large."""
    print(f"{shown.save(path)}  ({len(shown.html.encode()) / 1e6:.2f} MB)")
