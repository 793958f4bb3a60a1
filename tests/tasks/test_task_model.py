"""The model of generated tasks around every core: where it answers, what it may look at, and that it learns."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from task_cases import CASES

from relational_rnn import InputError
from relational_rnn.nn import LSTM
from relational_rnn.nn.cores import CORE_NAMES, CORES, MemorySizes, asked_for
from relational_rnn.tasks.contract import Task, TaskBatch, draw_batch
from relational_rnn.tasks.memorize import Memorize
from relational_rnn.tasks.model import TaskModel, TaskModelConfig, step_size, whole_answers
from relational_rnn.tasks.nth_farthest import NthFarthest

SIZES = MemorySizes(mem_slots=3, head_size=4, num_heads=2)
CONFIG = TaskModelConfig(embedding_size=6, head_size=8, head_layers=1)
FORCED = dataclasses.replace(CONFIG, teacher_forcing=True)
THINKING = dataclasses.replace(CONFIG, thinking_steps=2)
FORMS = {
    "end-vectors": (CASES["nth-farthest"], CONFIG),
    "end-thinking": (CASES["relations-vectors"], THINKING),
    "end-lengths": (CASES["relations-words"], CONFIG),
    "every": (CASES["associative-recall"], CONFIG),
    "decoded": (CASES["programs-add"], CONFIG),
    "decoded-forced": (CASES["memorize-reverse"], FORCED),
}


def build(task: Task, config: TaskModelConfig, core: str = "lstm", parameters: int = 1500) -> TaskModel:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        asked = asked_for("test", core, step_size(task.shape, config), SIZES, None, None)
        return TaskModel(task.shape, CORES[core].build(asked, parameters), config)


# A state of every kind meets every form; the others meet two of them, and the rest where it may take long.
OFTEN = ("rmc", "lstm", "attention", "fastweights")
PAIRS = [
    pytest.param(form, core, marks=[] if core in OFTEN or (i + j) % 3 == 0 else pytest.mark.slow, id=f"{form}-{core}")
    for i, form in enumerate(FORMS)
    for j, core in enumerate(CORE_NAMES)
]


@pytest.mark.parametrize(("form", "core"), PAIRS)
def test_every_core_trains_on_every_form_of_task(form, core):
    task, config = FORMS[form]
    model = build(task, config, core)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batch = draw_batch(task, "train", 0, seed=0, size=9)
    losses = []
    for _ in range(4):
        losses.append(F.cross_entropy(model(batch), batch.targets[batch.asked]))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    model.eval()
    assert model(draw_batch(task, "test", 0, seed=0, size=40)).shape[1] == task.shape.classes


@pytest.mark.parametrize("form", FORMS)
def test_a_sequence_is_answered_as_if_it_were_alone(form):
    """Neither padding nor neighbours matter."""
    task, config = FORMS[form]
    model = build(task, config).double().eval()
    batch = draw_batch(task, "test", 0, seed=0, size=12)
    if not task.shape.tokens:
        batch = dataclasses.replace(batch, inputs=batch.inputs.double())
    together = torch.zeros(*batch.targets.shape, task.shape.classes, dtype=torch.float64)
    together[batch.asked] = model(batch)
    for i in range(12):
        length = batch.inputs.shape[1] if batch.lengths is None else int(batch.lengths[i])
        targets = batch.targets[i : i + 1]
        if task.shape.answer == "every":
            targets = targets[:, :length]
        alone = TaskBatch(batch.inputs[i : i + 1, :length], None, targets, batch.groups[i : i + 1])
        torch.testing.assert_close(model(alone), together[i][batch.asked[i]], rtol=0, atol=1e-12)


def test_teacher_forcing_shows_the_right_answers_in_training_and_its_own_in_measuring():
    task = Memorize(length=3, symbols=4)
    model = build(task, FORCED)
    batch = draw_batch(task, "valid", 0, seed=0, size=30)
    other = dataclasses.replace(batch, targets=batch.targets.clone())
    other.targets[:, 0] = (other.targets[:, 0] + 1) % 4
    model.train()
    shown, changed = (model(b).unflatten(0, (30, 4)) for b in (batch, other))
    assert torch.equal(shown[:, 0], changed[:, 0])
    assert not torch.allclose(shown[:, 1], changed[:, 1])
    model.eval()
    assert torch.equal(model(batch), model(other))
    # Where its own answers happen to be the right ones, both are the same.
    own = model(batch).unflatten(0, (30, 4)).argmax(-1)
    model.train()
    forced = model(dataclasses.replace(batch, targets=own)).unflatten(0, (30, 4))
    model.eval()
    torch.testing.assert_close(forced, model(batch).unflatten(0, (30, 4)))


def test_without_teacher_forcing_nothing_of_the_targets_is_read():
    task = Memorize(length=3, symbols=4)
    model = build(task, CONFIG)
    batch = draw_batch(task, "valid", 0, seed=0, size=30)
    other = dataclasses.replace(batch, targets=(batch.targets + 1) % 4)
    assert torch.equal(model(batch), model(other))


def test_thinking_is_further_steps_on_the_learned_input():
    task = NthFarthest(objects=3, dimensions=2)
    model = build(task, THINKING)
    batch = draw_batch(task, "valid", 0, seed=0, size=7)
    longer = torch.cat([batch.inputs, model.start.expand(7, 2, -1)], 1)
    torch.testing.assert_close(model(batch), model.head(model.core(longer)[0][:, -1]))


def test_whole_answers_are_those_without_a_mistake(rng):
    batch = draw_batch(CASES["programs-program"], "train", 0, seed=0, size=50)
    correct = torch.rand(int(batch.asked.sum()), generator=rng) < 0.8
    rows = batch.asked.nonzero()[:, 0]
    slow = [bool(correct[rows == i].all()) for i in range(50)]
    assert whole_answers(correct, batch).tolist() == slow
    assert 0 < sum(slow) < 50


def test_what_does_not_fit_is_refused():
    shape = CASES["nth-farthest"].shape
    with pytest.raises(InputError, match="the core's input size does not fit the task"):
        TaskModel(shape, LSTM(5, 4), CONFIG)
    with pytest.raises(InputError, match="teacher_forcing would have no effect"):
        TaskModel(shape, LSTM(shape.inputs, 4), FORCED)
    every = CASES["associative-recall"].shape
    with pytest.raises(InputError, match="thinking_steps would have no effect"):
        TaskModel(every, LSTM(CONFIG.embedding_size, 4), THINKING)
    with pytest.raises(InputError, match="thinking_steps must be"):
        TaskModelConfig(thinking_steps=-1)
    with pytest.raises(InputError, match="head_layers must be"):
        TaskModelConfig(head_layers=-1)
    with pytest.raises(InputError, match="embedding_size must be"):
        TaskModelConfig(embedding_size=0)


@pytest.mark.parametrize("core", CORE_NAMES)
def test_every_core_beats_chance_on_a_toy_task(core):
    """Two numbers: the farthest from m is the other one, the second farthest m itself. Chance is 50 %."""
    task = NthFarthest(objects=2, dimensions=1)
    # Of 1,500 parameters the keys of four matrices leave too few for anything else.
    model = build(task, CONFIG, core, parameters=2000 if core == "fastweights" else 1500)
    # A block that is applied again and again takes smaller steps.
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003 if core == "universal" else 0.01)
    losses = []
    while len(losses) < 70 and (len(losses) < 3 or max(losses[-3:]) > 0.3):  # three in a row: it has learned
        batch = draw_batch(task, "train", len(losses), seed=0, size=32)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(batch), batch.targets[:, 0])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    batch = draw_batch(task, "test", 0, seed=0, size=400)
    model.eval()
    assert (model(batch).argmax(1) == batch.targets[:, 0]).float().mean() > 0.8
