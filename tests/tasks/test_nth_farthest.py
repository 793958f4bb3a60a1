"""N-th farthest against a slow reading of its definition, sequence by sequence."""

from __future__ import annotations

import numpy as np
import pytest

from relational_rnn import InputError
from relational_rnn.tasks.contract import draw_batch
from relational_rnn.tasks.nth_farthest import CONVENTIONS, NthFarthest, plateau_loss


def answer(steps: np.ndarray, objects: int, convention: str) -> tuple[int, int]:
    """(label, n as a user counts it) of the right answer, from the features of a sequence alone."""
    dimensions = steps.shape[1] - 3 * objects
    vectors, rest = steps[:, :dimensions].astype(np.float64), steps[:, dimensions:].reshape(-1, 3, objects)
    assert (rest.sum(2) == 1).all()  # one-hot, three times
    labels, second, third = rest.argmax(2).T
    n, m = (third, second) if convention == "sonnet" else (second, third)
    assert len(set(n)) == len(set(m)) == 1  # the question stands beside every step
    assert sorted(labels) == list(range(objects))
    where = {label: vector for label, vector in zip(labels, vectors, strict=True)}
    nearest_first = sorted(where, key=lambda label: np.linalg.norm(where[label] - where[m[0]]))
    assert nearest_first[0] == m[0]
    if convention == "sonnet":  # the n-th nearest, from 0
        return nearest_first[n[0]], n[0]
    if convention == "l0sg":  # the n-th farthest, from 0
        return nearest_first[::-1][n[0]], n[0]
    return nearest_first[::-1][n[0]], n[0] + 1  # the paper counts from 1; its one-hot begins with n = 1


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(("objects", "dimensions"), [(8, 16), (4, 4), (2, 1), (5, 3)])
def test_targets_are_those_of_the_definition(convention, objects, dimensions):
    task = NthFarthest(objects=objects, dimensions=dimensions, convention=convention)
    batch = draw_batch(task, "train", 0, seed=3, size=100)
    for steps, target, group in zip(batch.inputs.numpy(), batch.targets[:, 0], batch.groups, strict=True):
        label, n = answer(steps, objects, convention)
        assert label == target
        assert task.shape.groups[group] == f"n = {n}"


def test_labels_and_questions_are_uniform_and_vectors_fill_their_cube():
    task = NthFarthest(objects=4, dimensions=2)
    batch = draw_batch(task, "train", 0, seed=0, size=20_000)
    vectors, labels, n, m = (part.numpy() for part in batch.inputs.split([2, 4, 4, 4], 2))
    for one_hot in (labels, n, m):
        assert np.abs(one_hot.mean(0) - 0.25).max() < 0.02
    assert np.abs(np.bincount(batch.targets[:, 0]) / 20_000 - 0.25).max() < 0.02
    assert vectors.min() >= -1
    assert vectors.max() < 1
    assert abs(vectors.mean()) < 0.01
    assert abs(vectors.std() - 3**-0.5) < 0.01


def test_the_plateau_is_the_one_that_is_stated():
    """Knowing the reference's own rank and guessing otherwise: 2 / N."""
    for objects in (4, 8):
        batch = draw_batch(NthFarthest(objects=objects, dimensions=2), "train", 0, seed=0, size=40_000)
        n, m = (batch.inputs[:, 0, 2 + i * objects : 2 + (i + 1) * objects].argmax(1) for i in (1, 2))
        guess = (m + 1 + n % (objects - 1)) % objects  # some other label
        right = (m.where(n == objects - 1, guess) == batch.targets[:, 0]).float().mean()
        assert abs(float(right) - 2 / objects) < 0.01


def test_one_n_can_be_asked_for_alone():
    task = NthFarthest(objects=4, dimensions=2, n=4)
    batch = draw_batch(task, "train", 0, seed=0, size=50)
    assert task.shape.groups == ("n = 4",)
    assert not batch.groups.any()
    assert bool((batch.inputs[:, 0, 10:14].argmax(1) == batch.targets[:, 0]).all())  # the 4th farthest of 4 is m


def test_l0sg_and_the_paper_draw_the_same_and_count_differently():
    paper, l0sg = (NthFarthest(objects=4, dimensions=2, convention=c) for c in ("paper", "l0sg"))
    a, b = (draw_batch(task, "train", 0, seed=0, size=5) for task in (paper, l0sg))
    assert a.inputs.equal(b.inputs)
    assert (paper.shape.groups[0], l0sg.shape.groups[0]) == ("n = 1", "n = 0")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"objects": 4, "n": 5}, r"4 objects have no 5-th farthest\n  got       n = 5\n  expected  1 to 4"),
        ({"objects": 4, "n": 0}, "4 objects have no 0-th farthest"),
        ({"objects": 4, "n": 4, "convention": "l0sg"}, r"4 objects have no 4-th farthest(.|\n)*0 to 3"),
        ({"objects": 1}, "there must be two objects"),
        ({"objects": 0}, "objects must be a whole number"),
        ({"dimensions": 0}, "dimensions must be a whole number"),
        ({"convention": "mine"}, "convention is not a known choice"),
        ({"curriculum": "lessons", "mastered": 1.0}, "lessons would end unlearned"),
        ({"curriculum": "lessons", "mastered": 0.0}, "mastered must be above 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(InputError, match=f"NthFarthest: {message}"):
        NthFarthest(**wrong)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_lessons_have_fewer_objects_and_dimensions_and_count_from_the_reference(convention):
    task = NthFarthest(objects=5, dimensions=3, convention=convention, curriculum="lessons")
    assert task.lessons == [(3, 1), (3, 2), (3, 3), (4, 3), (5, 3)]
    for level, (most, used) in enumerate(task.lessons):
        batch = draw_batch(task, "train", 0, seed=1, size=200, level=level)
        sizes = batch.lengths.tolist()
        assert set(sizes) == set(range(2, most + 1))
        assert sizes.count(most) / 200 == pytest.approx(0.5 + 0.5 / (most - 1), abs=0.1)
        assert batch.inputs[..., used:3].count_nonzero() == 0
        assert bool(batch.inputs[:, :2, :used].all())
        for steps, size, target in zip(batch.inputs.numpy(), sizes, batch.targets[:, 0], strict=True):
            assert not steps[size:].any()
            vectors, labels, second, third = np.split(steps[:size], [3, 8, 13], axis=1)
            n, m = (part[0].argmax() for part in ((third, second) if convention == "sonnet" else (second, third)))
            labels = labels.argmax(1)
            assert labels.max() < most
            distances = np.linalg.norm(vectors - vectors[labels == m], axis=1)
            nearest_first = labels[distances.argsort()].tolist()
            assert nearest_first.index(target) == (n if convention == "sonnet" else 4 - n)
    curriculum = task.make_curriculum()
    assert curriculum is not None
    assert curriculum.levels == 5
    for split in ("valid", "test"):
        batch = draw_batch(task, split, 0, seed=1, size=50)
        assert batch.lengths is None
        assert bool(batch.inputs[..., :3].all())
    assert NthFarthest(objects=3, dimensions=1).lessons == [(3, 1)]
    two = NthFarthest(objects=2, dimensions=4, curriculum="lessons")
    assert two.lessons == [(2, 4)]
    assert two.make_curriculum() is None  # nothing to advance to
    assert draw_batch(two, "train", 0, seed=1, size=5).inputs[..., :4].all()


def test_a_lesson_ends_at_a_share_of_the_loss_of_who_knows_the_reference_alone():
    task = NthFarthest(objects=5, dimensions=3, curriculum="lessons", mastered=0.25)
    curriculum = task.make_curriculum()
    assert curriculum is not None
    for level, (most, _) in enumerate(task.lessons):
        batch = draw_batch(task, "train", 0, seed=1, size=40_000, level=level)
        n = batch.inputs[:, 0, 8:13].argmax(1)
        others = batch.lengths.double() - 1
        losses = others.log().where(n != 4, 0.0)  # n = 5, the nearest, is the reference itself
        assert float(losses.mean()) == pytest.approx(plateau_loss(most), rel=0.02)
        assert curriculum.ends[level] == 0.25 * plateau_loss(most)


def test_the_lessons_end_with_the_task_itself():
    assert NthFarthest().lessons[:6] == [(3, 1), (3, 2), (3, 4), (3, 8), (3, 16), (4, 16)]
