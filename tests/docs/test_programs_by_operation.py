"""The script experiments/programs_by_operation.py: which operations a model has learned."""

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
from scripts import load

from relational_rnn.runs import evaluate, train
from relational_rnn.tasks.contract import draw_batch
from relational_rnn.tasks.programs import CHARACTERS, OPERATIONS, Programs, programs_program_small


@pytest.fixture(scope="module")
def script():
    return load(Path(__file__).parents[2] / "experiments" / "programs_by_operation.py")


@pytest.mark.parametrize("mode", ["add", "control", "program"])
def test_every_program_has_one_of_the_operations_of_its_mode(script, mode):
    batch = draw_batch(Programs(mode=mode, length=2), "test", 0, seed=0, size=300)
    found = {script.operation_of(CHARACTERS.decode(row)) for row in batch.inputs}
    assert found == {script.NAMES[operation] for operation in OPERATIONS[mode]}


def test_the_operations_together_are_the_measured_run(script, tmp_path):
    recipe = programs_program_small()
    config = dataclasses.replace(
        recipe, core="gru", test_samples=200, valid_samples=64, loop=dataclasses.replace(recipe.loop, steps=3)
    )
    train(config, tmp_path / "run")
    measured = evaluate(tmp_path / "run")
    found = script.by_operation(tmp_path / "run")
    assert set(found) == set(script.NAMES.values())
    total = sum(found.values(), Counter())
    assert total["programs"] == 200
    assert total["whole"] / 200 == pytest.approx(measured.whole_accuracy)
    assert total["right"] / total["characters"] == pytest.approx(measured.mean_accuracy)


def test_programs_of_several_operations_are_refused(script, tmp_path):
    recipe = programs_program_small()
    data = dataclasses.replace(recipe.data, nesting=2)
    loop = dataclasses.replace(recipe.loop, steps=1)
    train(dataclasses.replace(recipe, data=data, loop=loop, valid_samples=64), tmp_path / "run")
    with pytest.raises(SystemExit, match="not a run on programs of one operation"):
        script.by_operation(tmp_path / "run")
