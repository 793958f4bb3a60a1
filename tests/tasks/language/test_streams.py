"""Streams: contiguous, pure functions of the step; evaluation covers every token once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from relational_rnn._check import InputError
from relational_rnn.tasks.language.corpus import Tokens
from relational_rnn.tasks.language.streams import LanguageBatch, TrainingStreams, evaluation_batches


def tokens(count: int, starts: tuple[int, ...] = (0,)) -> Tokens:
    """Token number i is i, so that a token says where it stands."""
    return Tokens(np.arange(count, dtype=np.uint16), np.array(starts), words=count, characters=count)


def assert_same(left: LanguageBatch, right: LanguageBatch) -> None:
    assert torch.equal(left.inputs, right.inputs)
    assert torch.equal(left.targets, right.targets)
    assert (left.reset is None) == (right.reset is None)
    assert left.reset is None or torch.equal(left.reset, right.reset)
    assert left.first == right.first


@pytest.mark.parametrize("seed", [None, 3])
def test_a_row_continues_the_row_of_the_step_before(seed):
    streams = TrainingStreams(tokens(101), batch_size=3, chunk=7, seed=seed)
    assert streams.steps_per_pass == 4
    seen = []
    for step in range(12):
        batch = streams.batch(step)
        assert batch.inputs.shape == batch.targets.shape == (3, 7)
        assert batch.inputs.dtype == batch.targets.dtype == torch.int64
        assert torch.equal(batch.targets, batch.inputs + 1)
        assert batch.first == (step % 4 == 0)
        assert batch.reset is None
        if not batch.first:
            assert torch.equal(batch.inputs[:, 0], seen[-1][:, -1] + 1)
        seen.append(batch.inputs)
    for start in (0, 4, 8):
        one_pass = torch.cat(seen[start : start + 4], 1)
        assert len(one_pass.unique()) == 3 * 28
        assert torch.equal(one_pass[1:, 0], one_pass[:-1, -1] + 1)  # stream b + 1 begins where stream b ends


def test_a_batch_depends_on_its_step_alone():
    streams = TrainingStreams(tokens(60, (0, 17, 40)), batch_size=2, chunk=5, seed=1)
    forward = [streams.batch(step) for step in range(13)]
    again = TrainingStreams(tokens(60, (0, 17, 40)), batch_size=2, chunk=5, seed=1)
    for step in reversed(range(13)):
        assert_same(again.batch(step), forward[step])


def test_a_seed_moves_the_cuts_from_pass_to_pass():
    text = tokens(1 + 4 * 50 + 29)
    streams = TrainingStreams(text, batch_size=2, chunk=100, seed=7)
    begins = [int(streams.batch(number).inputs[0, 0]) for number in range(200)]
    assert streams.steps_per_pass == 1
    assert min(begins) == 0
    assert max(begins) == 29
    assert len(set(begins)) > 20
    assert begins != [int(TrainingStreams(text, 2, 100, seed=8).batch(n).inputs[0, 0]) for n in range(200)]
    assert {int(TrainingStreams(text, 2, 100).batch(n).inputs[0, 0]) for n in range(5)} == {0}
    assert int(streams.batch(begins.index(29)).targets[-1, -1]) == len(text) - 1


def test_documents_starts_are_resets():
    starts = (0, 9, 10, 25, 47)
    streams = TrainingStreams(tokens(50, starts), batch_size=3, chunk=4, seed=2)
    for step in range(streams.steps_per_pass * 2):
        batch = streams.batch(step)
        expected = torch.isin(batch.inputs, torch.tensor(starts))
        assert batch.reset is not None
        assert batch.reset.dtype == torch.bool
        assert torch.equal(batch.reset, expected)
    assert TrainingStreams(tokens(50, starts), 3, 4, resets=False).batch(0).reset is None


def test_a_text_shorter_than_a_chunk_is_refused():
    assert TrainingStreams(tokens(16), batch_size=3, chunk=5).steps_per_pass == 1
    with pytest.raises(InputError) as error:
        TrainingStreams(tokens(15), batch_size=3, chunk=5)
    assert str(error.value) == (
        "TrainingStreams: the training text is shorter than one chunk of every stream\n"
        "  got       15 tokens\n"
        "  expected  at least 3 streams x 5 tokens + 1 = 16\n"
        "  hint      a smaller chunk or batch_size, or a longer text."
    )
    with pytest.raises(InputError, match="chunk must be a whole number"):
        TrainingStreams(tokens(15), batch_size=3, chunk=0)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 8, 40])
@pytest.mark.parametrize("chunk", [1, 3, 11, 100])
@pytest.mark.parametrize("count", [2, 12, 31])
def test_evaluation_covers_every_token_but_the_first_once(batch_size, chunk, count):
    starts = (0, 1, count // 2) if count > 2 else (0,)
    batches = list(evaluation_batches(tokens(count, starts), batch_size, chunk))
    targets = torch.cat([batch.targets for batch in batches], 1)
    inputs = torch.cat([batch.inputs for batch in batches], 1)
    assert sorted(targets[targets >= 0].tolist()) == list(range(1, count))
    assert torch.equal(inputs[targets >= 0] + 1, targets[targets >= 0])
    assert [batch.first for batch in batches] == [True, *[False] * (len(batches) - 1)]
    for row in targets:  # contiguous, and padding at the end only
        known = row[row >= 0]
        assert torch.equal(row[: len(known)], known)
        assert torch.equal(known, torch.arange(len(known)) + (known[0] if len(known) else 0))
    if count > 2:
        reset = torch.cat([batch.reset for batch in batches], 1)
        expected = torch.isin(inputs, torch.tensor(sorted(set(starts)))) & (targets >= 0)
        assert torch.equal(reset, expected)


def test_one_stream_is_the_text_in_order():
    batches = list(evaluation_batches(tokens(20), 1, 6))
    assert [batch.inputs.shape[1] for batch in batches] == [6, 6, 6, 1]
    assert torch.cat([batch.inputs for batch in batches], 1).tolist() == [list(range(19))]


def test_a_text_without_a_target_is_refused_before_the_first_batch():
    with pytest.raises(InputError, match="no token to predict\n  got       1 tokens"):
        evaluation_batches(tokens(1), 2, 3)


def test_a_batch_moves_to_another_device():
    batch = TrainingStreams(tokens(50, (0, 9)), batch_size=3, chunk=4).batch(0).to("meta")
    assert batch.reset is not None
    assert {tensor.device.type for tensor in (batch.inputs, batch.targets, batch.reset)} == {"meta"}
    assert batch.first
