"""The Relation Network against a double loop over objects, and on a question about pairs."""

import pytest
import torch
import torch.nn.functional as F
from cores_table import assert_close, draw
from torch import nn

from relational_rnn import InputError
from relational_rnn.nn.relation_network import RelationNetwork

B, R, D, Q, A = 4, 6, 5, 3, 2
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]], dtype=torch.bool)


def build(**sizes):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = RelationNetwork(D, Q, A, **{"pair_size": 7, "pair_layers": 3, "answer_hidden_size": 8, **sizes})
    network = network.double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * draw(*parameter.shape, seed=4))
    return network


def slow_answer(network, objects, question):
    """Equation 1 for one row, with the first layer of g in one piece."""
    first = torch.cat([network.first.weight, network.second.weight, network.question.weight], 1)
    total = torch.zeros(network.first.out_features, dtype=torch.float64)
    for a in objects:
        for b in objects:
            total = total + network.pairs(first @ torch.cat([a, b, question]) + network.first.bias)
    return network.answer(total)


@pytest.mark.parametrize("sizes", [{}, {"pair_layers": 1, "answer_hidden_layers": 1}])
def test_sums_over_all_pairs(sizes):
    network, objects, question = build(**sizes), draw(B, R, D), draw(B, Q, seed=1)
    answers = network(objects, question)
    for b in range(B):
        assert_close(answers[b], slow_answer(network, objects[b], question[b]))


def test_layers_are_as_many_as_asked_for():
    network = build(pair_layers=4, answer_hidden_layers=2)
    assert sum(isinstance(module, nn.Linear) for module in network.pairs) == 3  # and the first one, in three columns
    assert [type(module).__name__ for module in network.answer] == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]


def test_the_order_of_objects_does_not_matter_and_the_question_does():
    network, objects, question = build(), draw(B, R, D), draw(B, Q, seed=1)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert_close(network(objects[:, order], question), network(objects, question))
    assert not torch.allclose(network(objects, question + 1), network(objects, question))


def test_objects_that_do_not_exist_are_as_if_left_out():
    network, objects, question = build(), draw(B, R, D), draw(B, Q, seed=1)
    results = []
    for filling in (0.0, torch.nan):
        filled = objects.masked_fill(~MASK.unsqueeze(2), filling).requires_grad_()
        answers = network(filled, question, MASK)
        (gradient,) = torch.autograd.grad((answers * draw(B, A, seed=2)).sum(), filled)
        assert torch.equal(gradient[~MASK], torch.zeros_like(gradient[~MASK]))
        results.append(answers)
    assert torch.equal(*results)
    for b in range(B):
        assert_close(results[0][b], slow_answer(network, objects[b, MASK[b]], question[b]))
    assert_close(network(objects[:, :0], question)[0], network.answer(torch.zeros(7).double()))


def test_gradients():
    network = build()
    leaves = [draw(2, 3, D).requires_grad_(), draw(2, Q, seed=1).requires_grad_()]
    assert torch.autograd.gradcheck(lambda o, q: network(o, q, MASK[:2, :3]), leaves)
    (network(draw(B, R, D), draw(B, Q, seed=1)) * draw(B, A, seed=2)).sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters())


def test_a_saved_network_computes_the_same(tmp_path):
    network, objects, question = build(), draw(B, R, D), draw(B, Q, seed=1)
    network.save_pretrained(tmp_path)
    assert torch.equal(RelationNetwork.from_pretrained(tmp_path)(objects, question), network(objects, question))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"objects": draw(B, R, D + 1)}, "objects has the wrong size on axis D"),
        ({"objects": draw(B, D)}, "objects must have 3 axes, not 2"),
        ({"objects": draw(B, R, D).float()}, "objects has another dtype than the parameters"),
        ({"question": draw(B + 1, Q)}, "question has the wrong size on axis B"),
        ({"question": draw(B, Q).float()}, "question has another dtype than the parameters"),
        ({"mask": MASK[:, 1:]}, "mask has the wrong size on axis R"),
        ({"mask": MASK.double()}, "mask must be booleans"),
        ({"mask": MASK.to("meta")}, "mask is on another device"),
    ],
)
def test_what_does_not_fit_is_refused(change, problem):
    with pytest.raises(InputError, match=f"RelationNetwork: {problem}"):
        build()(**{"objects": draw(B, R, D), "question": draw(B, Q), "mask": MASK, **change})


@pytest.mark.parametrize(
    "size",
    [
        "object_size",
        "question_size",
        "answer_size",
        "pair_size",
        "pair_layers",
        "answer_hidden_size",
        "answer_hidden_layers",
    ],
)
def test_sizes_are_checked(size):
    with pytest.raises(InputError, match=f"RelationNetwork: {size} must be a whole number of at least 1"):
        RelationNetwork(**{"object_size": 2, "question_size": 2, "answer_size": 2, size: 0})


COLOURS = 4


def farthest(size):
    """Colours at places on a line; one colour is asked for, and the answer is that of what is farthest from it."""
    colour = torch.rand(size, COLOURS).argsort(1)
    place = 2 * torch.rand(size, COLOURS, 1) - 1
    distance = (place - place[:, :1]).abs().squeeze(2)  # the first object is asked for; RN cannot see that it is first
    objects = torch.cat([F.one_hot(colour, COLOURS).float(), place], -1)
    return objects, F.one_hot(colour[:, 0], COLOURS).float(), colour[torch.arange(size), distance.argmax(1)]


@pytest.mark.slow
def test_learns_which_object_is_farthest_from_the_one_asked_for():
    torch.manual_seed(0)
    network = RelationNetwork(COLOURS + 1, COLOURS, COLOURS, pair_size=32, pair_layers=2, answer_hidden_size=32)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(1500):
        objects, question, answer = farthest(64)
        loss = F.cross_entropy(network(objects, question), answer)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    objects, question, answer = farthest(1000)
    right = (network(objects, question).argmax(1) == answer).float().mean().item()
    print(f"right: {right:.3f}")
    assert right > 0.85  # 0.93 with torch 2.13; a guess that knows no distance is right once in three
