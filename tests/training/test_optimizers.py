"""Optimizers: which parameters go to which, and several of them as one."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import nn

from relational_rnn import InputError
from relational_rnn.training import OptimizerConfig
from relational_rnn.training.optimizers import Muon, build_optimizer, orthogonal

MUON = OptimizerConfig(method="muon", learning_rate=0.01, weight_decay=0.1, beta1=0.7, beta2=0.9)


class Reader(nn.Module):
    """An embedding, a recurrent net, a bias of three axes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embedding = nn.Embedding(7, 5)
        self.core = nn.GRU(5, 4)
        self.head = nn.Linear(4, 6)
        self.cube = nn.Parameter(torch.randn(2, 3, 4))


def update(model: nn.Module, optimizers, seed: int, rate: float = 0.01) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()


def by_hand(model: Reader):
    matrices = [model.core.weight_ih_l0, model.core.weight_hh_l0, model.head.weight]
    vectors = [model.core.bias_ih_l0, model.core.bias_hh_l0, model.head.bias]
    return [
        Muon(matrices, lr=1.0, weight_decay=0.1),
        torch.optim.AdamW([model.embedding.weight, model.cube], betas=(0.7, 0.9), weight_decay=0.1),
        torch.optim.AdamW(vectors, betas=(0.7, 0.9), weight_decay=0.0),
    ]


def test_muon_takes_the_matrices_and_adamw_the_rest():
    ours, theirs = Reader(), Reader()
    optimizer, plain = build_optimizer(ours, MUON), by_hand(theirs)
    for seed in range(4):
        update(ours, [optimizer], seed)
        update(theirs, plain, seed)
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, msg=name)


def test_the_state_is_saved_and_goes_on():
    ours, again = Reader(), Reader()
    optimizer = build_optimizer(ours, MUON)
    for seed in range(3):
        update(ours, [optimizer], seed)
    resumed = build_optimizer(again, MUON)
    again.load_state_dict(ours.state_dict())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for model, one in ((ours, optimizer), (again, resumed)):
        update(model, [one], 3, rate=0.05)
    for (name, a), b in zip(ours.named_parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, msg=name)


def test_a_schedule_reaches_every_part():
    model = Reader()
    optimizer = build_optimizer(model, MUON)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    update(model, [optimizer], 0, rate=0.0)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


def test_a_model_without_matrices_and_one_of_matrices_alone_have_an_optimizer():
    vector, matrix = nn.LayerNorm(5), nn.Linear(3, 4, bias=False)
    for model in (vector, matrix):
        before = model.weight.detach().clone()
        update(model, [build_optimizer(model, MUON)], 0)
        assert not torch.equal(before, model.weight)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "sgd"}, "method is not a known choice"),
    ],
)
def test_methods_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(InputError, match=f"OptimizerConfig: {message}"):
        OptimizerConfig(**wrong)


def polynomial_of_singular_values(matrix: torch.Tensor) -> torch.Tensor:
    """What the iteration is, by the singular values themselves."""
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.norm()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u * s @ v


@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 6, 4), (1, 5, 5), (4, 1, 3)])
def test_the_iteration_acts_on_singular_values(shape):
    matrices = torch.randn(*shape, generator=torch.Generator().manual_seed(4))
    made = orthogonal(matrices, (3.4445, -4.7750, 2.0315), 5, 1e-7)
    expected = torch.stack([polynomial_of_singular_values(matrix) for matrix in matrices])
    assert made.dtype == torch.float32
    torch.testing.assert_close(made.double(), expected, rtol=0, atol=2e-4)  # the polynomial is steep near 0
    exact = orthogonal(matrices.double(), (3.4445, -4.7750, 2.0315), 5, 1e-7)
    torch.testing.assert_close(exact, expected, rtol=0, atol=1e-10)


def test_a_gradient_of_zeros_moves_nothing_but_by_decay():
    matrix = nn.Parameter(torch.randn(3, 4))
    before, matrix.grad = matrix.detach().clone(), torch.zeros(3, 4)
    Muon([matrix], lr=0.5, weight_decay=0.1).step()
    torch.testing.assert_close(matrix.detach(), before * (1 - 0.5 * 0.1))


def test_updates_are_those_of_pytorch_up_to_its_rounding():
    """PyTorch's products are in bfloat16: 8 bits, through 5 steps that triple small numbers."""
    ours, theirs = Reader(), Reader()
    matrices = [[m.core.weight_ih_l0, m.core.weight_hh_l0, m.head.weight] for m in (ours, theirs)]
    mine = Muon(matrices[0], lr=1.0, weight_decay=0.1)
    other = torch.optim.Muon(matrices[1], lr=1.0, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for seed in range(3):
        update(ours, [mine], seed)
        update(theirs, [other], seed)
    assert mine.state_dict()["param_groups"] == other.state_dict()["param_groups"]
    start = Reader()
    for name in ("core.weight_ih_l0", "core.weight_hh_l0", "head.weight"):
        moved, as_theirs = (m.get_parameter(name) - start.get_parameter(name) for m in (ours, theirs))
        assert (moved - as_theirs).norm() < 0.03 * as_theirs.norm()


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        ({"nesterov": False}, "Muon: nesterov cannot be chosen\n  got       False\n  expected  True"),
        (
            {"adjust_lr_fn": None},
            "Muon: adjust_lr_fn cannot be chosen\n  got       None\n  expected  'match_rms",
        ),
    ],
)
def test_a_checkpoint_that_muon_would_not_obey_is_refused(choice, sentence):
    matrix = nn.Parameter(torch.ones(3, 4))
    theirs = torch.optim.Muon([matrix], **{"adjust_lr_fn": "match_rms_adamw", **choice}).state_dict()
    ours = Muon([matrix], lr=0.5, weight_decay=0.1)
    with pytest.raises(InputError, match=re.escape(sentence)):
        ours.load_state_dict(theirs)
    assert ours.param_groups[0]["lr"] == 0.5  # nothing was loaded
    ours.param_groups[0].update(choice)
    with pytest.raises(InputError, match=re.escape(sentence)):
        ours.step()


def test_a_checkpoint_of_pytorch_is_obeyed():
    ours, theirs = Reader(), Reader()
    other = torch.optim.Muon(
        [theirs.head.weight], lr=0.3, momentum=0.7, ns_steps=2, weight_decay=0.2, adjust_lr_fn="match_rms_adamw"
    )
    update(theirs, [other], 0, rate=0.3)
    mine = Muon([ours.head.weight], lr=1.0, weight_decay=0.1)
    mine.load_state_dict(copy.deepcopy(other.state_dict()))
    ours.load_state_dict(theirs.state_dict())
    start = ours.head.weight.detach().clone()
    update(ours, [mine], 1, rate=0.3)
    update(theirs, [other], 1, rate=0.3)
    moved, as_theirs = ours.head.weight - start, theirs.head.weight - start
    assert (moved - as_theirs).norm() < 0.03 * as_theirs.norm()
