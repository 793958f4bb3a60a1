"""Every generated task keeps the contract: pure batches, splits that never meet, shapes that models can trust."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from task_cases import CASES

from relational_rnn import InputError
from relational_rnn.runs import workload_of
from relational_rnn.tasks import names
from relational_rnn.tasks.contract import NO_ANSWER, SPLITS, Task, TaskBatch, draw_batch, stream_seed

EACH_TASK = pytest.mark.parametrize("task", CASES.values(), ids=CASES)


def same(a: TaskBatch, b: TaskBatch) -> bool:
    pairs = [(getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(TaskBatch)]
    return all(x is y is None or (x.shape == y.shape and torch.equal(x, y)) for x, y in pairs)


def test_every_generated_task_has_a_case():
    assert {task.name for task in CASES.values()} == set(names()) - {"babi", "language"}
    for task in CASES.values():
        assert workload_of(task.name).config().task.name == task.name


@EACH_TASK
def test_a_batch_is_a_function_of_seed_split_and_number(task: Task):
    first = draw_batch(task, "train", 3, seed=5, size=16)
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    assert same(first, draw_batch(task, "train", 3, seed=5, size=16))
    assert torch.equal(torch.random.get_rng_state(), before)
    others = [
        draw_batch(task, split, number, seed=seed, size=16)
        for split, number, seed in (("train", 4, 5), ("train", 3, 6), ("valid", 3, 5), ("test", 3, 5))
    ]
    assert not any(same(first, other) for other in others)


@EACH_TASK
@pytest.mark.parametrize("split", SPLITS)
def test_a_batch_fits_the_shape_of_its_task(task: Task, split):
    shape = task.shape
    batch = draw_batch(task, split, 0, seed=1, size=300)
    if shape.tokens:
        assert batch.inputs.dtype == torch.int64
        steps = batch.inputs.shape[1]
        assert int(batch.inputs.min()) >= 0
        assert int(batch.inputs.max()) < shape.inputs
    else:
        assert batch.inputs.dtype == torch.float32
        assert batch.inputs.shape[2] == shape.inputs
        steps = batch.inputs.shape[1]
    assert batch.inputs.shape[0] == batch.targets.shape[0] == batch.groups.shape[0] == 300
    answers = batch.targets[batch.asked]
    assert int(answers.min()) >= 0
    assert int(answers.max()) < shape.classes
    assert bool(batch.asked.any(1).all())  # every sequence asks for something
    if shape.answer == "end":
        assert batch.targets.shape == (300, 1)
    if shape.answer == "every":
        assert batch.targets.shape == (300, steps)
    if batch.lengths is not None:
        assert int(batch.lengths.min()) >= 1
        assert int(batch.lengths.max()) == steps
        past = torch.arange(steps) >= batch.lengths[:, None]
        assert not batch.inputs[past].any()
        if shape.answer == "every":
            assert bool((batch.targets[past] == NO_ANSWER).all())
    names = {shape.groups[group] for group in batch.groups.unique().tolist()}
    assert names <= set(shape.groups) - (set(shape.beyond) if split != "test" else set())
    if split == "test":
        assert names == set(shape.groups)
    else:
        decoding = batch.targets.shape[1] if shape.answer == "decoded" else 0
        assert steps + decoding <= shape.steps


@EACH_TASK
def test_rows_of_a_batch_are_drawn_on_their_own(task: Task):
    inputs = draw_batch(task, "train", 0, seed=0, size=64).inputs.flatten(1)
    assert len(inputs.unique(dim=0)) > 32


def test_the_splits_never_meet_in_seed_space_and_a_split_never_repeats():
    seeds = {split: {stream_seed(seed, split, n) for seed in range(20) for n in range(500)} for split in SPLITS}
    assert not seeds["train"] & seeds["valid"] | seeds["train"] & seeds["test"] | seeds["valid"] & seeds["test"]
    assert {seed % 4 for seed in seeds["train"]} == {0}
    assert max(max(values) for values in seeds.values()) < 2**32
    assert len({stream_seed(7, "train", n) for n in range(100_000)}) == 100_000
    assert stream_seed(7, "train", 2**30 - 1) != stream_seed(7, "train", 0) == stream_seed(7, "train", 2**30)


def test_pytorch_reads_32_bits_of_a_seed_on_the_cpu():
    """The reason why `stream_seed` has no more; once this fails, it may have."""
    a, b = (torch.rand(4, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1 + 2**32))
    assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "all"}, "split is not a known choice"),
        ({"number": -1}, "there is no such batch"),
        ({"number": 2**30}, "there is no such batch"),
        ({"size": 0}, "size must be a whole number of at least 1"),
    ],
)
def test_a_batch_that_cannot_be_is_refused(arguments, message):
    task = next(iter(CASES.values()))
    with pytest.raises(InputError, match=f"draw_batch: {message}"):
        draw_batch(task, **{"split": "train", "number": 0, "seed": 0, "size": 2, **arguments})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@EACH_TASK
def test_a_gpu_draws_the_same_batch_twice(task: Task):
    batches = [draw_batch(task, "train", 3, seed=5, size=16, device="cuda") for _ in range(2)]
    assert batches[0].inputs.is_cuda
    assert same(*batches)
