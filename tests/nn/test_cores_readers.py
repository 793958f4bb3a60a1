"""How a question looks at the state of every core of the table."""

from __future__ import annotations

import copy

import torch
from cores_table import BATCH, INPUTS, assert_close, draw, row_of, some_state
from torch import Tensor

from relational_rnn.nn.core import Core, State
from relational_rnn.nn.readers import Look, StateReader

SIZE, LOOKS, HEADS = 12, 2, 3


def reader_of(core: Core, seed: int = 5) -> StateReader:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return core.reader(SIZE, LOOKS, HEADS).double()


def look(reader: StateReader, state: State, question: Tensor) -> list[Look]:
    opened, looks = reader.open(state), []
    for index in range(LOOKS):
        looks.append(reader.look(index, question, opened, looks[-1].values if looks else None))
    return looks


def test_every_look_finds_something_of_its_own_for_every_question(case):
    core = case.core()
    looks = look(reader_of(core), some_state(core), draw(BATCH, SIZE))
    for found, values, where in looks:
        assert found.shape == (BATCH, SIZE)
        assert values.shape == (BATCH, reader_of(core).values_size)
        assert where.shape[0] == BATCH
    assert (looks[0].found - looks[1].found).abs().min() > 0


def test_a_question_looks_at_its_own_state_alone(case):
    core = case.core()
    reader, question = reader_of(core), draw(BATCH, SIZE)
    # of ragged ends, so that a growing state has steps that a row does not have
    _, state = core(draw(BATCH, 4, INPUTS, seed=9), lengths=torch.tensor([4, 1, 3, 2, 4]))
    together = look(reader, state, question)
    for row in range(BATCH):
        alone = look(reader, row_of(core, state, row), question[row : row + 1])
        for one, expected in zip(together, alone, strict=True):
            assert_close(one.found[row], expected.found[0])
            assert_close(one.values[row], expected.values[0])


def test_a_look_changes_with_the_state_and_with_the_question(case):
    core = case.core()
    reader, question = reader_of(core), draw(BATCH, SIZE)
    states = [core(draw(BATCH, 3, INPUTS, seed=seed))[1] for seed in (1, 2)]
    one, other = (look(reader, state, question)[0].found for state in states)
    assert (one - other).abs().amax(1).min() > 0
    where, elsewhere = (look(reader, states[0], asked)[1].where for asked in (question, question.flip(0)))
    # attention to a single row is 1, whatever is asked
    assert torch.equal(where, elsewhere) == (where.shape[1:] == (HEADS, 1))


def test_gradients_reach_the_state_the_question_and_every_weight(case):
    core, question = case.core(), draw(BATCH, SIZE).requires_grad_()
    reader, x = reader_of(core), draw(BATCH, 3, INPUTS).requires_grad_()
    looks = look(reader, core(x)[1], question)
    sum((one.found * draw(*one.found.shape, seed=i)).sum() for i, one in enumerate(looks)).backward()
    assert x.grad is not None
    assert x.grad[:, 0].abs().amax(1).min() > 0
    idle = {name for name, p in reader.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    if looks[0].where.shape[1:] == (HEADS, 1):  # nothing to choose from
        assert idle == {name for name, _ in reader.named_parameters() if name.startswith("queries")}
    else:
        assert idle == set()
        assert question.grad is not None
        assert question.grad.abs().amax(1).min() > 0


def test_a_reader_is_saved_with_the_model_and_holds_nothing_of_the_core(case):
    core = case.core()
    model = torch.nn.ModuleDict({"core": core, "reader": reader_of(core)})
    own = {name for name in model.state_dict() if name.startswith("reader.")}
    assert {name.split(".")[1] for name in own} >= {"queries", "outputs"}
    assert set(model.state_dict()) - own == {f"core.{name}" for name in core.state_dict()}
    fresh, state, question = reader_of(core, seed=6), some_state(core), draw(BATCH, SIZE)
    expected = look(model["reader"], state, question)
    assert not torch.equal(look(fresh, state, question)[0].found, expected[0].found)
    fresh.load_state_dict(model["reader"].state_dict())
    for other in (fresh, copy.deepcopy(model)["reader"]):
        for one, wanted in zip(look(other, state, question), expected, strict=True):
            assert torch.equal(one.found, wanted.found)
