"""What `train` and `compare` share: the configuration that options change, and where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from relational_rnn._check import InputError, describe
from relational_rnn._files import json_text
from relational_rnn._reading.json_text import read_json_object
from relational_rnn._reading.structure import from_json
from relational_rnn.console.parsing import parse_arguments, spell_out
from relational_rnn.nn.cores import FAST_WEIGHTS
from relational_rnn.runs import RunConfig, Workload, read_config, workload_of

SHARED = ("memory", "rivals", "fast", "optimizer", "loop")
"""Groups of options that every task has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """The options that decide which configuration the others change."""

    recipe: str | None = None
    """A recipe."""
    config: Path | None = None
    """A file with a whole configuration."""
    out: Path | None = None
    """A run folder."""
    resume: bool = False
    """Take the configuration of the run folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Common:
    """Options of both commands."""

    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Start from the configuration in this file, config.json of a run folder or what --print-config wrote, instead of a
    recipe."""
    print_config: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the whole configuration as --config reads it, and do nothing else."""


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
        workload, words = self.workload, spell_out(args, self.workload.short)
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
            kind, words, command=self.command, examples=self.EXAMPLES, default=default, shared=SHARED
        )
        return found, words

    def folder(self, arguments: Any, words: Sequence[str]) -> Path:
        """Where runs go that name no folder."""
        asked = any(word.split("=", 1)[0] == "--recipe" for word in words)
        return self.workload.folder(arguments.run, arguments.recipe, asked=asked)


def fields_of(config: RunConfig) -> dict[str, Any]:
    """The fields of a configuration by their names."""
    return {field.name: getattr(config, field.name) for field in fields(config)}


def starting(workload: Workload[Any], args: Sequence[str], command: str) -> tuple[str, RunConfig]:
    """The name of the recipe, and the configuration that the other options change: its own, a file's, or a resumed
    run's.

    Raises:
        InputError: `--resume` without `--out`, or without a run there; two sources of a configuration; a file that
            holds none.
    """
    start, _ = tyro.cli(
        Start, args=list(args), prog=f"relational-rnn {command}", return_unknown_args=True, add_help=False
    )
    first = next(iter(workload.recipes))
    if {"-h", "--help", "--help-all"} & set(args):
        start = Start(recipe=start.recipe)
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
        content = read_json_object(start.config)
        task = content.pop("task", None)
        if task != workload.name:
            problem = f"this is no configuration of a run on {workload.name}"
            raise InputError(describe(str(start.config), problem, got=f"task {task!r}"))
        return first, workload.starting(from_json(workload.config, content, where=str(start.config)), typed)
    # an unknown name is left to the parser, which lists the known ones
    name = start.recipe if start.recipe is not None and start.recipe in workload.recipes else first
    return name, workload.starting(workload.recipes[name](), typed)


def check_typed(args: Sequence[str], command: str, cores: Sequence[str]) -> None:
    """Refuse sizes of the fast weights that were typed where no core has them; a recipe may have them for any core."""
    typed = [word.split("=", 1)[0] for word in args if word.startswith("--fast.")]
    if typed and FAST_WEIGHTS not in cores:
        problem = f"{typed[0]} would have no effect on {', '.join(cores)}"
        raise InputError(describe(command, problem, hint=f"the core that has it: {FAST_WEIGHTS}."))


def print_configuration(config: RunConfig) -> None:
    """As `--config` reads it."""
    print(json_text(config.to_json()), end="")
