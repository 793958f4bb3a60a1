"""How alike are the slots of a memory, and how evenly do sentences spread over them? Makes docs/figures/slots.svg.

    python docs/make_slots.py --original runs/babi/rmc-0 ... --competitive runs/babi/competitive-0 ...

Reads the test stories of each run on bAbI, and keeps what it measured in docs/results/slots.json, which
docs/inspection.md is made from (`python docs/make_inspection.py`).
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from relational_rnn._check import InputError, describe
from relational_rnn._files import write_whole
from relational_rnn.console.boundary import guarded
from relational_rnn.inspection import attention_statistics
from relational_rnn.nn import RelationalMemory
from relational_rnn.reports.figures import STYLES, draw
from relational_rnn.runs import load
from relational_rnn.tasks.babi.answering import StoryReader
from relational_rnn.tasks.babi.problem import test_stories
from relational_rnn.tasks.babi.story import Story

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results" / "slots.json"
DRAWING = ROOT / "docs" / "figures" / "slots.svg"
KINDS = {"original": "rmc", "competitive": "competitive"}
"""Options, and the core that their runs have."""
PANELS = {
    "likeness": "mean cosine\nbetween two slots",
    "entropy": "entropy of which slot\ntook most, 0 to 1",
    "largest": "share of a sentence in the\nslot that took most",
}
AT_ONCE = 32


class Spread(NamedTuple):
    """How one run spreads sentences over its slots."""

    slots: int
    likeness: float
    """Mean cosine between two different slots, over steps and stories."""
    entropy: float
    """Of which slot took most, over all sentences, as a share of the logarithm of the slots: 1 where each takes as
    many, 0 where one takes all."""
    largest: float
    """What the slot that took most took, as a share of what all slots took, mean over sentences; at least 1 / slots."""
    sentences: int


def spread_of(reader: StoryReader, stories: Sequence[Story]) -> Spread:
    """What a slot took is how much of it was replaced while the sentence was read (mean over its numbers).

    Raises:
        InputError: the model has no relational memory, or one with a single slot.
    """
    core = reader.model.core
    if not isinstance(core, RelationalMemory) or core.mem_slots < 2:
        problem = "only a relational memory of several slots spreads sentences"
        raise InputError(describe("make_slots", problem, got=type(core).__name__))
    likeness, most, largest = [], torch.zeros(core.mem_slots, dtype=torch.float64), []
    ordered = sorted(stories, key=lambda story: len(story.statements))
    for first in range(0, len(ordered), AT_ONCE):
        some = ordered[first : first + AT_ONCE]
        batch = reader.batch([story.statements for story in some], [story.questions[-1].text for story in some])
        with torch.no_grad():
            trace = core.trace(reader.model.encoder.statements(batch.statements), lengths=batch.lengths)
        likeness.append(attention_statistics([(trace, batch.lengths)]).likeness)
        update = trace.update()
        assert update is not None, "the cores of KINDS have gates"
        happened = torch.arange(batch.statements.shape[1]) < batch.lengths[:, None]
        taken = update[0].double().mean(-1)[happened]  # [sentences, N]
        most += torch.bincount(taken.argmax(-1), minlength=core.mem_slots)
        largest.append(taken.max(-1).values / taken.sum(-1))
    return Spread(
        slots=core.mem_slots,
        likeness=torch.cat(likeness).mean().item(),
        entropy=torch.special.entr(most / most.sum()).sum().item() / math.log(core.mem_slots),
        largest=torch.cat(largest).mean().item(),
        sentences=int(most.sum()),
    )


def measure(folder: Path, core: str) -> dict[str, Any]:
    """The spread of a run over its own test stories, and which run it is."""
    loaded = load(folder)
    if loaded.config.core != core:
        expected = f"a run of the core {core}"
        raise InputError(describe(str(folder), "the run has another core", got=loaded.config.core, expected=expected))
    reader = StoryReader(loaded.model, loaded.vocabulary, max_sentences=loaded.config.data.max_sentences)
    stories = [story for some in test_stories(loaded.config.data)[0].values() for story in some]
    found = spread_of(reader, stories)
    versions = json.loads((folder / "versions.json").read_text(encoding="utf-8"))
    about = {name: versions[name] for name in ("commit", "date", "machine", "torch") if versions.get(name)}
    steps, seed = loaded.config.loop.steps, loaded.config.seed
    return {"core": core, "seed": seed, "steps": steps, "tasks": len(loaded.config.data.tasks), **about} | (
        found._asdict()
    )


def check_alike(made: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Refuse runs of different sizes or budgets, which one figure cannot compare."""
    for name in ("slots", "steps", "tasks"):
        if len(found := {run[name] for runs in made.values() for run in runs}) > 1:
            raise InputError(describe("make_slots", f"the runs have different numbers of {name}", got=sorted(found)))


def drawing(made: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Three panels, each with a bar for each kind of slots and a dot for each run."""

    def paint(figure: Figure) -> None:
        for axes, (name, label) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
            for place, (kind, runs) in enumerate(made.items()):
                values = [run[name] for run in runs]
                axes.bar(place, mean(values), 0.6, color=STYLES[KINDS[kind]][0], alpha=0.75)
                axes.plot([place] * len(values), values, "o", color="#1b1b1f", markersize=3)
                above = (place, max(0.0, *values))
                axes.annotate(f"{mean(values):.2f}", above, (0, 5), textcoords="offset points", ha="center")
            if name == "largest":
                axes.axhline(1 / next(iter(made.values()))[0]["slots"], color="#5c5c66", linewidth=0.8, linestyle="--")
            axes.set_xticks(range(len(made)), list(made))
            axes.set_xlim(-0.6, len(made) - 0.4)
            axes.set_ylim(min(0.0, *(run[name] for runs in made.values() for run in runs)), 1.1)
            axes.set_title(label, fontsize=9)

    return draw(7.2, 2.9, paint)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, core in KINDS.items():
        parser.add_argument(
            f"--{option}", type=Path, nargs="+", required=True, metavar="RUN", help=f"runs on bAbI of the core {core}"
        )
    chosen = parser.parse_args()
    folders = {kind: getattr(chosen, kind) for kind in KINDS}
    missing = [str(folder) for some in folders.values() for folder in some if not (folder / "config.json").is_file()]
    if missing:
        problem = f"there is no run in {', '.join(missing)}"
        raise InputError(describe("make_slots", problem, hint="train it with `relational-rnn compare babi`"))
    torch.set_num_threads(1)
    made = {kind: [measure(folder, KINDS[kind]) for folder in some] for kind, some in folders.items()}
    check_alike(made)
    write_whole(RESULTS, json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    write_whole(DRAWING, drawing(made))
    print(DRAWING)


if __name__ == "__main__":
    raise SystemExit(guarded(main))
