"""What makes the difference in slots that compete and in fast weights? One part of a memory is changed at a time.

    python experiments/ablate_memories.py --data PATH --out results/ablation --variants slots slots-no-share
    python experiments/ablate_memories.py --page --out results/ablation

Trains the model of the recipe `babi` with every variant (experiments/memory_variants.py) and keeps its accuracy on the
validation stories, since settings are compared here: a file for each variant, tasks, updates and seed. What is there is
not trained again. `--page` makes the tables of docs/ablation.md and its figure from these files.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memory_variants import VARIANTS, Variant

from relational_rnn._check import InputError, check_choice, check_positive, describe
from relational_rnn._files import write_json, write_whole
from relational_rnn._reading.json_text import read_json_object
from relational_rnn.console.boundary import guarded
from relational_rnn.nn.core import Core
from relational_rnn.nn.cores import CORES, count_parameters, state_bytes_after
from relational_rnn.pages import Cell, Table
from relational_rnn.reports.figures import STYLES, draw
from relational_rnn.reports.results import without_folder
from relational_rnn.runs import build, initial_weights, mean_and_spread
from relational_rnn.runs.folder import spent_on
from relational_rnn.tasks.babi.problem import BabiProblem, TrainingStories, training_stories
from relational_rnn.tasks.babi.recipes import BabiRun, DataConfig, babi
from relational_rnn.tasks.babi.story import TASK_NAMES
from relational_rnn.training import ConsoleProgress, Measure, Progress, Totals, fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
PAGE, DRAWING = ROOT / "docs" / "ablation.md", ROOT / "docs" / "figures" / "ablation-state.svg"
RESULTS = ROOT / "results" / "ablation"
BLOCK = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.S)
EVERY = 250
"""Updates from one validation to the next."""


class Watched(BabiProblem):
    """Keeps what validation finds for every task, of which a run folder has the mean."""

    def __init__(self, problem: BabiProblem) -> None:
        super().__init__(problem.model, problem.data)
        self.seen = Totals()

    def measure(self, batch: Any) -> Measure:
        measure = super().measure(batch)
        if not self.model.training:
            self.seen.add(measure)
        return measure


def configuration(variant: Variant, data: DataConfig, steps: int, seed: int) -> BabiRun:
    """The recipe `babi` with another memory, budget and data."""
    recipe = babi()
    every = data.tasks == tuple(TASK_NAMES)
    return replace(
        recipe,
        data=data,
        core=variant.core,
        memory=variant.memory,
        fast=variant.fast,
        loop=replace(recipe.loop, steps=steps, validate_every=EVERY),
        # without the other tasks there is no use in showing some of them rarely
        rare_tasks=recipe.rare_tasks if every else (),
        rare_share=recipe.rare_share if every else 1.0,
        # a run that is no longer than the first lesson has none
        first_tasks=recipe.first_tasks if every and steps > recipe.first_steps else (),
        first_steps=recipe.first_steps if every and steps > recipe.first_steps else 0,
        seed=seed,
    )


def idle_parameters(problem: BabiProblem) -> int:
    """How many numbers are in parameters that have no gradient at all, as they were left out of the arithmetic."""
    problem.measure(problem.train_batch(0)).losses.mean().backward()
    idle = [p.numel() for p in problem.model.parameters() if p.grad is None or not p.grad.any()]
    problem.model.zero_grad()
    return sum(idle)


def run(name: str, config: BabiRun, stories: TrainingStories) -> dict[str, Any]:
    """Train a variant and say what is to be known of it."""
    problem, alter, curve = Watched(build(config, stories)), VARIANTS[name].alter, []
    core: Core = problem.model.core
    with initial_weights(config.seed):
        altered = contextlib.nullcontext() if alter is None else alter(core)
    with altered, tempfile.TemporaryDirectory() as folder, ConsoleProgress(f"{name}-{config.seed}") as show:

        def listen(progress: Progress) -> None:
            if problem.seen.count:
                curve.append({"step": progress.step, "accuracy": problem.seen.group_accuracy})
                problem.seen = Totals()
            show(progress)

        idle = idle_parameters(problem)
        place = Path(folder) / name
        fit(
            problem,
            place,
            optimizer=config.optimizer,
            loop=config.loop,
            seed=config.seed,
            configuration=config.to_json(),
            on_progress=listen,
        )
        assert problem.data.valid is not None
        return {
            "variant": name,
            "core": config.core,
            "tasks": list(config.data.tasks),
            "steps": config.loop.steps,
            "seed": config.seed,
            "accuracy": curve[-1]["accuracy"],
            "curve": curve,
            "parameters": count_parameters(problem.model),
            "idle_parameters": idle,
            "state_bytes": state_bytes_after(core, int(problem.data.valid.lengths.max())),
            "processor_seconds": spent_on(place).processor_seconds,
            "report": [*stories.report, *problem.data.report],
            "versions": without_folder(read_json_object(place / "versions.json")),
            # where the stories lie on this machine is nobody else's
            "configuration": replace(config, data=replace(config.data, path=Path("PATH"))).to_json(),
        }


def train_all(names: Sequence[str], data: DataConfig, steps: int, seeds: Sequence[int], out: Path) -> None:
    """Train what is not in the folder yet: every variant once before any of them a second time."""
    tasks = "all" if data.tasks == tuple(TASK_NAMES) else "-".join(map(str, data.tasks))
    wanted = [(name, seed, out / f"{name}.{tasks}.{steps}.{seed}.json") for seed in seeds for name in names]
    left = [run for run in wanted if not run[2].exists()]
    if not left:
        return
    stories = training_stories(data)
    for name, seed, path in left:
        write_json(path, run(name, configuration(VARIANTS[name], data, steps, seed), stories))
        print(path)


Results = dict[tuple[tuple[int, ...], int], dict[str, list[dict[str, Any]]]]
"""What was measured: by tasks and updates, then by variant, a record for each seed."""


def read(folder: Path) -> Results:
    """The records in a folder, those of few tasks first."""
    found: Results = {}
    for path in sorted(folder.glob("*.json")):
        record = read_json_object(path)
        check_choice(str(path), "variant", record["variant"], VARIANTS)
        setting: Any = (tuple(record["tasks"]), record["steps"])  # type: ignore[arg-type]
        found.setdefault(setting, {}).setdefault(str(record["variant"]), []).append(record)
    return dict(sorted(found.items(), key=lambda item: (len(item[0][0]), item[0])))


def percent(values: Sequence[float]) -> str:
    value, spread = mean_and_spread(values)
    return f"{100 * value:.1f}" + (f" ± {100 * spread:.1f}" if len(values) > 1 else "")


def mean_accuracy(record: Mapping[str, Any]) -> float:
    """The mean over tasks."""
    return sum(record["accuracy"].values()) / len(record["accuracy"])


def named(tasks: Sequence[int], steps: int) -> str:
    which = "all 20 tasks" if len(tasks) == len(TASK_NAMES) else f"tasks {', '.join(map(str, tasks))}"
    return f"{which}, {steps:,} updates"


def table(name: str, results: Results) -> str:
    """A row per variant; for each setting the mean over tasks, and tasks one by one where they are few."""
    shown = {variant: VARIANTS[variant] for variant in VARIANTS if VARIANTS[variant].table == name}
    measured = {setting: found for setting, found in results.items() if found.keys() & shown.keys()}
    if not measured:
        return "Not measured yet."
    head, rows = ["variant"], []
    for tasks, steps in measured:
        few = [f"task {task}" for task in tasks] if len(tasks) < len(TASK_NAMES) else []
        head += [named(tasks, steps), "seeds", *few]
    for variant, row in shown.items():
        cells = [Cell(row.change, kind="markdown")]
        for (tasks, _), found in measured.items():
            records, few = found.get(variant, []), tasks if len(tasks) < len(TASK_NAMES) else ()
            cells += (
                [percent([mean_accuracy(record) for record in records]), str(len(records))] if records else ["", ""]
            )
            cells += [percent([record["accuracy"][str(task)] for record in records]) if records else "" for task in few]
        last = next((found[variant][0] for found in measured.values() if variant in found), None)
        if last is not None:
            idle = f" ({last['idle_parameters']:,} idle)" if last["idle_parameters"] else ""
            rows.append([*cells, f"{last['parameters']:,}{idle}", f"{last['state_bytes']:,}"])
    return Table([*head, "parameters", "state bytes"], rows).markdown()


def picture(results: Results) -> str:
    """The link to the figure."""
    if not results:
        return "Not measured yet."
    return f"![Validation accuracy of every core against the bytes of its state.](figures/{DRAWING.name})"


def drawing(results: Results) -> str:
    """A panel per setting; a line for every core that has several sizes, a mark for every other."""

    def paint(figure: Figure) -> None:
        for axes, (setting, found) in zip(
            figure.subplots(1, len(results), squeeze=False)[0], results.items(), strict=True
        ):
            for core, (colour, _) in STYLES.items():
                some = [found[name] for name, v in VARIANTS.items() if v.core == core and v.drawn and name in found]
                points = sorted((runs[0]["state_bytes"], mean_and_spread([*map(mean_accuracy, runs)])) for runs in some)
                if points:
                    across, values = zip(*points, strict=True)
                    axes.errorbar(
                        across,
                        [100 * value for value, _ in values],
                        yerr=[100 * spread for _, spread in values],
                        color=colour,
                        marker="o" if len(points) > 1 else "s",
                        markersize=4,
                        linewidth=1.4,
                        elinewidth=0.8,
                        label=CORES[core].label,
                    )
            axes.set_xscale("log", base=2)
            axes.set_xlabel("bytes of state")
            axes.set_ylabel("validation accuracy, %")
            axes.set_title(named(*setting), fontsize=9)
            axes.grid(True)
        handles = {
            label: handle
            for axes in figure.axes
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=4)

    return draw(0.6 + 5.0 * len(results), 4.2, paint)


MADE: dict[str, Callable[[Results], str]] = {
    **{name: partial(table, name) for name in ("slots", "fast", "cores")},
    "picture": picture,
}


def render(page: str, results: Results) -> str:
    """The page with every block made from the results."""
    return BLOCK.sub(lambda match: f"{match[1]}{MADE[match[2]](results)}\n{match[3]}", page)


def tasks_of(words: Sequence[str]) -> tuple[int, ...]:
    """The tasks of the command line; `DataConfig` refuses numbers that are none."""
    if list(words) == ["all"]:
        return tuple(TASK_NAMES)
    if not all(word.isdecimal() for word in words):
        raise InputError(describe("ablate_memories", "tasks are numbers, or all", got=" ".join(words)))
    return tuple(map(int, words))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="PATH", help="the published stories: a folder or an archive")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER", help="of the results")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), metavar="NAME", help=", ".join(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", default=["1", "2", "6", "11"], metavar="TASK", help="numbers, or all")
    parser.add_argument("--steps", type=int, default=1500, help="updates, over which the learning rate falls")
    parser.add_argument("--page", action="store_true", help="make the tables and the figure; train nothing")
    chosen = parser.parse_args()
    if chosen.page:
        results = read(chosen.out)
        if results:
            write_whole(DRAWING, drawing(results))
        write_whole(PAGE, render(PAGE.read_text(encoding="utf-8"), results))
        print(PAGE)
        return
    for name in chosen.variants:
        check_choice("ablate_memories", "variants", name, VARIANTS)
    check_positive("ablate_memories", steps=chosen.steps)
    if chosen.data is None:
        raise InputError(describe("ablate_memories", "training needs stories", hint="name them with --data PATH"))
    tasks = tasks_of(chosen.tasks)
    # the published set that is spread has a part of task 3 only
    whole = tasks == tuple(TASK_NAMES)
    data = DataConfig(path=chosen.data, tasks=tasks, partial=whole, fill_up=whole)
    train_all(chosen.variants, data, chosen.steps, chosen.seeds, chosen.out)


if __name__ == "__main__":
    raise SystemExit(guarded(main))
