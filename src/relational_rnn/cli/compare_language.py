"""relational-rnn compare language"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Annotated

import tyro

from relational_rnn import recipes
from relational_rnn._check import need_extra
from relational_rnn.cli.boundary import KEPT, stopped_with
from relational_rnn.cli.parsing import parse_arguments, spell_out
from relational_rnn.cli.tables import text_table
from relational_rnn.cli.train_language import SHORT, RecipeName, named_after, starting_run
from relational_rnn.cli.trials import TrialReport
from relational_rnn.nn.cores import CORES, FastWeightSizes, MemorySizes, RivalSizes
from relational_rnn.recipes.babi import CoreName
from relational_rnn.reports import write_report
from relational_rnn.reports.runs import mean_and_spread
from relational_rnn.tasks.language.corpus import CorpusConfig
from relational_rnn.tasks.language.model import LanguageModelConfig
from relational_rnn.training import AveragingConfig, LoopConfig, OptimizerConfig

COMMAND = "compare language"
EXAMPLES = (
    "relational-rnn compare language --data data/tiny-shakespeare.txt --cores rmc lstm transformer --seeds 0 1 2",
    "relational-rnn compare language --recipe wikitext-2-small --data data/wikitext-2 --cores rmc lstm",
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """Train and measure a model for every core and every seed on a text; print one table, and write a report with
    learning curves, perplexity by word frequency, and what it costs to lose the past.

    All models have the same embedding and softmax and as many parameters, and read the same text in the same order.
    With `--tuning.learning-rates` every core tries these first and takes the one with the lowest validation loss.
    Called again with the same options, it goes on where it was stopped.
    """

    recipe: RecipeName = "shakespeare-char"
    """What the options start from."""
    cores: tuple[CoreName, ...] = ("rmc", "lstm")
    """The recurrent cores."""
    seeds: tuple[int, ...] = (0,)
    """Decide initial weights, dropout, and where every pass over the text begins."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Gets a run folder CORE-SEED for each run, and the report; by default runs/TEXT after the name of the text, or
    runs/RECIPE where a recipe is asked for."""
    jobs: int = 1
    """Runs that are trained at the same time, each in a process of its own. A small run gains little from a second
    thread (--loop.threads), so that as many jobs as processor cores are fastest."""
    tuning: recipes.TuningConfig = dataclasses.field(default_factory=recipes.TuningConfig)
    """Learning rates that every core tries first."""
    batch_size: int
    """Streams of text that are read side by side."""
    chunk: int
    """Tokens of a stream between two updates."""
    accumulate: int
    """Batches whose gradients are added up before an update."""
    valid_streams: int
    """Streams that the validation text is cut into while training."""
    data: CorpusConfig
    """The text, and how it becomes tokens."""
    memory: MemorySizes
    """The relational memory."""
    rivals: RivalSizes
    """Heads and layers of the cores that have them."""
    fast: FastWeightSizes
    """The fast-weight memory, where it is among the cores."""
    model: LanguageModelConfig
    """What stands around the core, the same for every core."""
    optimizer: OptimizerConfig
    """Optimizer and schedule of the learning rate."""
    loop: LoopConfig
    """Budget, validation, device."""
    averaging: AveragingConfig
    """Whether an average of the weights is what is judged and saved."""


SHARED = tuple(field.name for field in dataclasses.fields(recipes.LanguageRun) if field.name not in ("core", "seed"))
"""Fields of a run that a comparison takes over as they are."""


def parse(args: Sequence[str]) -> Arguments:
    words = spell_out(args, SHORT)
    recipe, config = starting_run(words, COMMAND)
    shared = {name: getattr(config, name) for name in SHARED}
    default = Arguments(recipe=recipe, **shared)  # type: ignore[arg-type]  # a name that is not known never comes back
    arguments = parse_arguments(Arguments, words, command=COMMAND, examples=EXAMPLES, default=default)
    return dataclasses.replace(arguments, out=arguments.out or named_after(words, recipe, arguments.data))


def run(arguments: Arguments) -> None:
    need_extra("matplotlib", "report", "the report at the end of a comparison")  # said before the training
    base = recipes.LanguageRun(**{name: getattr(arguments, name) for name in SHARED})
    out = arguments.out
    assert out is not None
    trials = TrialReport("loss")
    with stopped_with(KEPT):
        found = recipes.compare_language(
            base,
            arguments.cores,
            arguments.seeds,
            out,
            tuning=arguments.tuning,
            jobs=arguments.jobs,
            on_trials=trials,
            on_run=lambda p, e: print(describe_language_run(p, e), flush=True),
        )
    print(f"\n{language_table(found)}")
    print(f"\nreport: {write_report(list(found), out / 'report', title='Language', notes=trials.notes)}")


def describe_language_run(folder: Path, found: recipes.LanguageEvaluation) -> str:
    """One run in one line."""
    return (
        f"{folder}: perplexity {found.perplexity:,.2f} per word, {found.bits_per_character:.4f} bits per character on "
        f"{found.tokens:,} tokens"
    )


def language_table(found: Mapping[Path, recipes.LanguageEvaluation]) -> str:
    """A row per core: parameters, state, perplexity, bits, seconds; with the spread over seeds.

    Args:
        found: measurements by run folder, as `compare_language` returns them.
    """
    head = ["core", "parameters", "state bytes", "perplexity per word", "bits per character", "accuracy", "seconds"]
    rows = []
    for core in dict.fromkeys(evaluation.core for evaluation in found.values()):
        runs = [evaluation for evaluation in found.values() if evaluation.core == core]
        rows.append(
            [
                CORES[core].label,
                f"{runs[0].parameters:,}",
                f"{runs[0].state_bytes:,}",
                _spread([run.perplexity for run in runs], "{:,.2f}"),
                _spread([run.bits_per_character for run in runs], "{:.4f}"),
                f"{100 * mean(run.mean_accuracy for run in runs):.1f} %",
                f"{mean(run.train_seconds for run in runs):,.0f}",
            ]
        )
    return text_table(head, rows)


def _spread(values: Sequence[float], form: str) -> str:
    value, spread = mean_and_spread(values)
    return form.format(value) + (f" ± {form.format(spread)}" if len(values) > 1 else "")
