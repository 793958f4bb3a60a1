"""relational-rnn train TASK, and what it shares with `compare`: the configuration that options change."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_type_hints

import tyro

from relational_rnn._check import InputError, describe
from relational_rnn._files import json_text
from relational_rnn._reading.json_text import read_json_object
from relational_rnn._reading.structure import from_json
from relational_rnn.console.parsing import parse_arguments, spell_out
from relational_rnn.console.tables import shown
from relational_rnn.nn.cores import FAST_WEIGHTS
from relational_rnn.runs import RunConfig, Workload, read_config, train, workload_of
from relational_rnn.training import Terminated

SHARED = ("memory", "rivals", "fast", "optimizer", "loop")
"""Groups of options that every task has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Common:
    """Options of both commands."""

    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Start from the configuration in this file, config.json of a run folder or what --print-config wrote, instead of a
    recipe."""
    print_config: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the whole configuration as --config reads it, and do nothing else."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(Common):
    """What is no part of the run's configuration."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The run folder; by default runs/RECIPE/CORE-SEED, on a text runs/TEXT/CORE-SEED."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on with the run in --out, under the configuration it began with."""


class TrainingCommand:
    """`train TASK` or `compare TASK`, named by its words: "train babi"."""

    description: ClassVar[str]
    options: ClassVar[type[Common]]
    """What is no part of a run's configuration."""

    def __init__(self, command: str) -> None:
        verb, task = command.split(maxsplit=1)
        self.command = command
        self.workload: Workload[Any] = workload_of(task)
        examples = self.workload.train_examples if verb == "train" else self.workload.compare_examples
        more = ["--out runs/first --resume"] if verb == "train" else []
        self.EXAMPLES = tuple(f"relational-rnn {command} {words}" for words in [*examples, *more])

    def typed(self, args: Sequence[str], config: type[Any]) -> tuple[Any, list[str]]:
        """The arguments, whose `run` is a `config`, and the words with short options spelled out."""
        workload = self.workload
        words = ["--help" if word == "--help-all" else word for word in spell_out(args, workload.short)]
        hidden = SHARED if {"-h", "--help"} & set(words) and "--help-all" not in args else ()
        if hidden:
            config = without(config, *hidden)
        recipe, start = starting(workload, words, self.command)
        names = tuple(workload.recipes)
        kind = make_dataclass(
            "Arguments",
            [
                ("recipe", Annotated[Literal[names], tyro.conf.arg(help="What the options start from.")]),  # type: ignore[valid-type]
                ("run", Annotated[config, tyro.conf.arg(name="")]),
            ],
            bases=(self.options,),
            frozen=True,
            kw_only=True,
        )
        data = f"{workload.data_help} " if workload.data_help else ""
        kind.__doc__ = self.description.format(task=workload.name, data=data)
        default = kind(recipe=recipe, run=config(**fields_of(start)))
        found = parse_arguments(
            kind, words, command=self.command, examples=self.EXAMPLES, default=default, further=hidden
        )
        return found, words

    def folder(self, arguments: Any, words: Sequence[str]) -> Path:
        """Where runs go that name no folder."""
        asked = any(word.split("=", 1)[0] == "--recipe" for word in words)
        return self.workload.folder(arguments.run, arguments.recipe, asked=asked)


class Train(TrainingCommand):
    """The command `train TASK` of one task."""

    options = Options
    description = """Train one model on {task} and keep everything about it in a run folder.

{data}A recipe sets all options below at once (the defaults shown are those of the chosen one), and each can then be
changed.
"""

    def parse(self, args: Sequence[str]) -> Any:
        arguments, words = self.typed(args, self.workload.config)
        run = arguments.run
        check_typed(words, self.command, [run.core])
        out = arguments.out or self.folder(arguments, words) / f"{run.core}-{run.seed}"
        return replace(arguments, out=out)

    def run(self, arguments: Any) -> None:
        config, folder = arguments.run, arguments.out
        if arguments.print_config:
            print_configuration(config)
            return
        try:
            outcome = train(config, folder, resume=arguments.resume)
        except (KeyboardInterrupt, Terminated) as stop:
            where, *more = str(stop).splitlines() or ["nothing was begun"]
            again = shown("relational-rnn", *self.command.split(), "--out", folder, "--resume")
            raise type(stop)(where + (f"; go on with: {again}" if more else "")) from stop
        best = self.workload.best(outcome)
        print(f"{folder}: {outcome.steps:,} steps in {outcome.seconds:,.0f} s; {best} after step {outcome.best_step:,}")
        print(f"measure it with: {shown('relational-rnn', 'evaluate', folder)}")


def without(config: type[Any], *names: str) -> type[Any]:
    """The same options but for these, which keep the values of the default."""
    kinds = get_type_hints(config)
    hidden: list[Any] = [(name, tyro.conf.Suppress[tyro.conf.Fixed[kinds[name]]], None) for name in names]
    return make_dataclass("Base", hidden, bases=(config,), frozen=True, kw_only=True)


def fields_of(config: RunConfig) -> dict[str, Any]:
    """The fields of a configuration by their names."""
    return {field.name: getattr(config, field.name) for field in fields(config)}


def starting(workload: Workload[Any], args: Sequence[str], command: str) -> tuple[str, RunConfig]:
    """The name of the recipe, and the configuration that the other options change: its own, a file's, or a resumed
    run's."""
    parser = argparse.ArgumentParser(prog=f"relational-rnn {command}", add_help=False, allow_abbrev=False)
    for option in ("--recipe", "--config", "--out"):
        parser.add_argument(option)
    parser.add_argument("--resume", action="store_true")
    start, _ = parser.parse_known_args(args)
    if {"-h", "--help"} & set(args):
        start.config, start.resume = None, False
    first = next(iter(workload.recipes))
    typed = [word.split("=", 1)[0] for word in args]
    if start.recipe is not None and start.config is not None:
        raise InputError(describe(command, "--recipe and --config exclude each other: both are a whole configuration"))
    if start.resume:
        if start.out is None:
            raise InputError(describe(command, "--resume needs to know which run", hint="name its folder with --out"))
        for name in ("recipe", "config"):
            if getattr(start, name) is not None:
                problem = f"--resume goes on with the configuration of the run, so --{name} has no place"
                raise InputError(describe(command, problem, got=f"--{name} {getattr(start, name)}"))
        return first, read_config(start.out, workload.name)
    if start.config is not None:
        content = read_json_object(Path(start.config))
        task = content.pop("task", None)
        if task != workload.name:
            problem = f"this is no configuration of a run on {workload.name}"
            raise InputError(describe(str(start.config), problem, got=f"task {task!r}"))
        return first, workload.starting(from_json(workload.config, content, where=str(start.config)), typed)
    # an unknown name is left to the parser, which lists the known ones
    name = start.recipe if start.recipe is not None and start.recipe in workload.recipes else first
    return name, workload.starting(workload.recipes[name](), typed)


def check_typed(args: Sequence[str], command: str, cores: Sequence[str]) -> None:
    """Refuse typed sizes of the fast weights where no core has them; a recipe may have them for any core."""
    typed = [word.split("=", 1)[0] for word in args if word.startswith("--fast.")]
    if typed and FAST_WEIGHTS not in cores:
        problem = f"{typed[0]} would have no effect on {', '.join(cores)}"
        raise InputError(describe(command, problem, hint=f"the core that has it: {FAST_WEIGHTS}."))


def print_configuration(config: RunConfig) -> None:
    """As `--config` reads it."""
    print(json_text(config.to_json()), end="")
