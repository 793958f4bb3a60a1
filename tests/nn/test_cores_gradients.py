"""Gradients of everything into everything, against finite differences."""

import torch
from cores_table import INPUTS, draw

EPSILON = 1e-6
BATCH, STEPS = 3, 4  # small: finite differences take two runs per number
LENGTHS = torch.tensor([2, 4, 0])
RESET = torch.tensor([[0, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]], dtype=torch.bool)
ROWS, AT = torch.tensor([2, 0, 2, 1]), torch.tensor([4, 0, 1, 3])


def tensors(state):
    return list(state.values()) if isinstance(state, dict) else [state]


class Run(torch.nn.Module):
    """`run(core, x, state)` as a module, so that `functional_call` can put other weights in."""

    def __init__(self, core, run):
        super().__init__()
        self.core, self.run = core, run

    def forward(self, x, state):
        return tuple(tensor for tensor in self.run(self.core, x, state) if tensor.dtype.is_floating_point)


def check(case, run):
    """Gradients into x, the state that came in and the parameters, along random directions."""
    module = Run(case.core(), run)
    weights = dict(module.named_parameters())
    with torch.no_grad():
        _, start = module.core(draw(BATCH, 2, INPUTS, seed=9))
    named = start if isinstance(start, dict) else {"state": start}
    floats = {name: tensor for name, tensor in named.items() if tensor.dtype.is_floating_point}
    leaves = [draw(BATCH, STEPS, INPUTS), *floats.values(), *weights.values()]

    def outputs(x, *rest):
        state = {**named, **dict(zip(floats, rest, strict=False))}
        new = dict(zip(weights, rest[len(floats) :], strict=True))
        state = state if isinstance(start, dict) else state["state"]
        return torch.func.functional_call(module, new, (x, state))

    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    assert torch.autograd.gradcheck(outputs, leaves, fast_mode=True)


def whole(core, x, state):
    y, final = core(x, state)
    return [y, *tensors(final)]


def cut(core, x, state):
    y, final = core(x, state, lengths=LENGTHS, reset=RESET)
    return [y, *tensors(final)]


def asked(core, x, state):
    y, after = core.step(draw(len(ROWS), INPUTS, seed=2), core.snapshots(x, ROWS, AT, state))
    return [y, *tensors(after)]


def test_gradients_of_the_sequence(case):
    check(case, whole)


def test_every_number_of_the_jacobian(case):
    """Of the outputs by x and the state. A number is the work of one row of a batch, as rows do not see one another."""
    core = case.core()
    with torch.no_grad():
        _, start = core(draw(1, 2, INPUTS, seed=9))
    named = start if isinstance(start, dict) else {"state": start}
    floats = {"x": draw(1, STEPS, INPUTS)} | {name: t for name, t in named.items() if t.dtype.is_floating_point}

    def outputs(given):
        """Of every row of `given`, which has the numbers of x and of the state side by side."""
        parts = given.split([t.numel() for t in floats.values()], 1)
        x, *rest = (part.reshape(-1, *t.shape[1:]) for part, t in zip(parts, floats.values(), strict=True))
        state = {name: t.expand(len(given), *t.shape[1:]) for name, t in named.items()}
        state |= dict(zip(list(floats)[1:], rest, strict=True))
        return core(x, state if isinstance(start, dict) else state["state"])[0].flatten(1)

    point = torch.cat([t.flatten(1) for t in floats.values()], 1)
    with torch.no_grad():
        moves = EPSILON * torch.eye(point.numel(), dtype=point.dtype)
        differences = (outputs(point + moves) - outputs(point - moves)).T / (2 * EPSILON)
    rows = point.repeat(len(differences), 1).requires_grad_()
    (gradients,) = torch.autograd.grad(outputs(rows), rows, torch.eye(len(differences), dtype=point.dtype))
    torch.testing.assert_close(gradients, differences, rtol=1e-3, atol=1e-5)  # as gradcheck has it


def test_gradients_with_lengths_and_resets(case):
    check(case, cut)


def test_gradients_of_a_step_on_snapshots(case):
    check(case, asked)


def test_every_parameter_learns(case):
    core = case.core()
    y, _ = core(draw(BATCH, STEPS, INPUTS))
    (y * draw(*y.shape, seed=3)).sum().backward()
    still = [name for name, p in core.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert still == []
