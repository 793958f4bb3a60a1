"""The grid of a comparison, and the learning rates that its cores try."""

import dataclasses
import json
import math

import pytest

from relational_rnn._check import InputError
from relational_rnn.nn.cores import FastWeightSizes, MemorySizes, RivalSizes
from relational_rnn.runs import Trial, TuningConfig, best_trials, compare, load, read_config, train
from relational_rnn.tasks.associative_recall import AssociativeRecall, AssociativeRecallRun
from relational_rnn.tasks.babi.recipes import BabiRun
from relational_rnn.tasks.language.recipes import LanguageRun
from relational_rnn.tasks.model import TaskModelConfig
from relational_rnn.tasks.nth_farthest import NthFarthest, NthFarthestRun
from relational_rnn.tasks.programs import Programs, ProgramsRun
from relational_rnn.tasks.relations import RelationsRun
from relational_rnn.training import LoopConfig, read_metrics

BASE = NthFarthestRun(
    data=NthFarthest(objects=2, dimensions=1),
    memory=MemorySizes(mem_slots=2, head_size=6, num_heads=2),
    model=TaskModelConfig(head_size=12, head_layers=1),
    loop=LoopConfig(steps=8, validate_every=2, checkpoint_every=2),
    batch_size=8,
    valid_samples=64,
    test_samples=30,
)
SHARED = {field.name: getattr(BASE, field.name) for field in dataclasses.fields(BASE)}


def trial(core, rate, accuracy, loss):
    return Trial(core=core, learning_rate=rate, steps=9, valid_accuracy=accuracy, valid_loss=loss)


TRIALS = [
    trial("rmc", 1e-3, 0.5, 0.9),
    trial("rmc", 2e-3, 0.7, 0.8),
    trial("rmc", 4e-3, 0.7, 0.7),
    trial("gru", 1e-3, 0.6, 0.4),
    trial("gru", 2e-3, 0.5, 0.3),
    trial("gru", 4e-3, None, None),
]


@pytest.mark.parametrize(
    ("best_by", "expected"), [("accuracy", {"rmc": 4e-3, "gru": 1e-3}), ("loss", {"rmc": 4e-3, "gru": 2e-3})]
)
def test_the_best_trial_of_every_core_is_its_own(best_by, expected):
    best = best_trials(TRIALS, best_by=best_by)
    assert {core: trial.learning_rate for core, trial in best.items()} == expected


def test_a_core_that_diverges_with_every_rate_is_refused():
    with pytest.raises(InputError, match=r"no learning rate works for the core 'gru'.*\n.*0.004"):
        best_trials(TRIALS[-1:])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"learning_rates": (1e-3,)}, "two or more.*\n.*\n.*optimizer's learning_rate"),
        ({"learning_rates": (1e-3, 2e-3, 1e-3)}, "each once"),
        ({"steps": 5}, "steps would have no effect"),
        ({"learning_rates": (1e-3, 2e-3), "steps": 0}, "steps"),
    ],
)
def test_trials_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(InputError, match=f"TuningConfig: .*{message}"):
        TuningConfig(**wrong)


def test_every_core_runs_with_the_rate_that_did_best_on_its_validation_data(tmp_path):
    rates = (1e-4, 1e-2, 1e38)  # the last one diverges
    told = []
    tuning = TuningConfig(learning_rates=rates, steps=6)
    found = compare(BASE, ["rmc", "gru"], [3, 0], tmp_path, tuning=tuning, on_trials=told.extend)
    assert [(t.core, t.learning_rate, t.steps) for t in told] == [(c, r, 6) for c in ("rmc", "gru") for r in rates]
    assert [t.valid_loss is None for t in told] == [False, False, True] * 2
    for core in ("rmc", "gru"):
        best, best_rank = None, (-math.inf, -math.inf)
        for rate in rates[:2]:
            folder = tmp_path / "trials" / f"{core}-{rate:g}"
            config = read_config(folder)
            expected = dataclasses.replace(config.optimizer, learning_rate=rate)
            assert (config.core, config.seed, config.loop.steps, config.optimizer) == (core, 3, 6, expected)
            assert not (folder / "result.json").exists(), "a trial must not see the test set"
            for row in read_metrics(folder / "metrics.csv"):
                rank = float(row["valid_accuracy"]), -float(row["valid_loss"])
                if rank > best_rank:
                    best, best_rank = rate, rank
        for seed in (3, 0):
            config = read_config(tmp_path / f"{core}-{seed}")
            assert (config.optimizer.learning_rate, config.loop.steps, config.seed) == (best, 8, seed)
    assert [path.name for path in found] == ["rmc-3", "rmc-0", "gru-3", "gru-0"]
    before = {
        path: path.stat().st_mtime_ns for path in tmp_path.glob("**/model.safetensors") if "1e+38" not in str(path)
    }
    again = compare(BASE, ["rmc", "gru"], [3, 0], tmp_path, tuning=tuning)
    assert again == found
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what was done was done again"


def test_choices_of_rivals_go_to_the_cores_that_have_them(tmp_path):
    base = dataclasses.replace(BASE, rivals=RivalSizes(num_heads=1, num_layers=2))
    found = compare(base, ["gru", "dnc", "transformer"], [0], tmp_path)
    assert compare(base, ["gru", "dnc", "transformer"], [0], tmp_path) == found
    configs = {core: read_config(tmp_path / f"{core}-0").rivals for core in ("gru", "dnc", "transformer")}
    assert configs == {"gru": RivalSizes(), "dnc": RivalSizes(num_heads=1), "transformer": base.rivals}
    assert len(load(tmp_path / "transformer-0").model.core.layers) == 2
    with pytest.raises(InputError, match=r"compare: rivals.num_layers would have no effect on gru, dnc\n"):
        compare(base, ["gru", "dnc"], [0], tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_choices_of_the_fast_weights_go_to_them_alone(tmp_path):
    fast = FastWeightSizes(num_heads=2, key_size=5, value_size=3, carry=False)
    base = dataclasses.replace(BASE, fast=fast)
    found = compare(base, ["gru", "fastweights"], [0], tmp_path)
    assert compare(base, ["gru", "fastweights"], [0], tmp_path) == found
    configs = {core: read_config(tmp_path / f"{core}-0").fast for core in ("gru", "fastweights")}
    assert configs == {"gru": FastWeightSizes(), "fastweights": fast}
    assert "fast" not in json.loads((tmp_path / "gru-0" / "config.json").read_text())
    assert load(tmp_path / "fastweights-0").model.core.arguments["key_size"] == 5
    with pytest.raises(InputError, match=r"compare: fast.num_heads would have no effect on gru, dnc\n"):
        compare(base, ["gru", "dnc"], [0], tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("kind", [BabiRun, LanguageRun, RelationsRun])
def test_a_choice_that_the_core_of_a_run_does_not_have_is_refused_before_anything_is_read(kind, tmp_path):
    with pytest.raises(InputError, match=r"train: rivals.num_heads would have no effect on lstm\n"):
        train(kind(core="lstm", rivals=RivalSizes(num_heads=2)), tmp_path / "run")
    with pytest.raises(InputError, match=r"train: fast.reads would have no effect on rmc\n"):
        train(kind(core="rmc", fast=FastWeightSizes(reads=3)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_trials_take_a_quarter_of_the_budget(tmp_path):
    told = []
    tuning = TuningConfig(learning_rates=(1e-3, 1e-2))
    compare(BASE, ["rnn"], [0], tmp_path, tuning=tuning, on_trials=told.extend)
    assert [t.steps for t in told] == [2, 2]


def in_lessons(**more):
    data = AssociativeRecall(pairs=4, length=16, vocabulary=16, curriculum="lessons", window=3, **more)
    return AssociativeRecallRun(**SHARED | {"data": data})


def trials_of(base, folder, steps):
    told = []
    tuning = TuningConfig(learning_rates=(1e-3, 1e-2), steps=steps)
    compare(base, ["gru"], [0], folder, tuning=tuning, on_trials=told.extend)
    return told


def test_a_trial_that_ends_before_the_last_lesson_tells_which_and_its_loss(tmp_path):
    told = trials_of(in_lessons(mastered=9.0), tmp_path, 4)  # every loss is below 9: the second of 3 has begun
    assert [trial.lesson for trial in told] == [2, 2]
    for trial in told:
        last = read_metrics(tmp_path / "trials" / f"gru-{trial.learning_rate}" / "metrics.csv")[-1]
        assert trial.lesson_loss == float(last["train_loss"])


def test_a_trial_in_the_last_lesson_is_judged_by_its_validation(tmp_path):
    told = trials_of(in_lessons(mastered=9.0), tmp_path, 8)
    assert [(trial.lesson, trial.lesson_loss) for trial in told] == [(3, None)] * 2
    folder = tmp_path / "trials" / "gru-0.001"
    metrics = (folder / "metrics.csv").read_text().splitlines()
    columns = metrics[0].split(",")
    chance = dict(zip(columns, metrics[1].split(","), strict=True))
    assert chance["lesson"] != "3"
    metrics[1] = ",".join(str(chance[name]) if name != "valid_accuracy" else "0.99" for name in columns)
    (folder / "metrics.csv").write_text("\n".join(metrics) + "\n")
    again = trials_of(in_lessons(mastered=9.0), tmp_path, 8)
    assert again == told, "a validation before the last lesson counted"


@pytest.mark.parametrize("cell", ["", None])
def test_a_trial_whose_lessons_are_not_told_is_refused(cell, tmp_path):
    trials_of(in_lessons(mastered=9.0), tmp_path, 4)
    path = tmp_path / "trials" / "gru-0.001" / "metrics.csv"
    head, *rows = [line.rpartition(",")[0] for line in path.read_text().splitlines()]
    lines = [head, *rows] if cell is None else [f"{head},lesson", *(f"{row},{cell}" for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"metrics\.csv: does not tell the lesson of every row"):
        trials_of(in_lessons(mastered=9.0), tmp_path, 4)


@pytest.mark.parametrize(("entry", "other"), [("task", "relations"), ("core", "lstm"), ("seed", 5)])
def test_the_measurement_of_another_run_is_made_again(entry, other, tmp_path):
    (path, found), *_ = compare(BASE, ["gru"], [0], tmp_path).items()
    content = json.loads((path / "result.json").read_text())
    (path / "result.json").write_text(json.dumps(content | {entry: other, "mean_accuracy": 0.123}))
    (again,) = compare(BASE, ["gru"], [0], tmp_path).values()
    assert again.mean_accuracy == found.mean_accuracy
    assert json.loads((path / "result.json").read_text())[entry] == content[entry]


def test_levels_that_end_where_nothing_more_is_learned_say_nothing_of_a_trial(tmp_path):
    data = Programs(length=2, curriculum="naive", window=2)
    told = trials_of(ProgramsRun(**SHARED | {"data": data}), tmp_path, 4)
    assert [(trial.lesson, trial.lesson_loss) for trial in told] == [(None, None)] * 2


@pytest.mark.parametrize("best_by", ["accuracy", "loss"])
def test_the_trial_that_is_furthest_in_the_lessons_is_the_best(best_by):
    def at(rate, lesson, lesson_loss, accuracy):
        done = trial("gru", rate, accuracy, 1 - accuracy)
        return dataclasses.replace(done, lesson=lesson, lesson_loss=lesson_loss)

    first, second, slower, last, better = (
        at(1e-4, 1, 0.1, 0.9),
        at(1e-3, 2, 0.5, 0.8),
        at(2e-3, 2, 0.6, 0.85),
        at(4e-3, 3, None, 0.3),
        at(8e-3, 3, None, 0.4),
    )
    for worse, winner in ((first, second), (first, slower), (slower, second), (second, last), (last, better)):
        for order in ([worse, winner], [winner, worse]):
            assert best_trials(order, best_by=best_by)["gru"] is winner
