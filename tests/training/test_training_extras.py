"""What only some problems ask of the loop: gradients added up, averaged weights, states that are carried along."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

pytest.importorskip("lightning_fabric")

import training_toy as toy
from training_toy import Stop, metrics, stop_at

from relational_rnn import InputError
from relational_rnn.training import (
    AveragingConfig,
    LoopConfig,
    Measure,
    OptimizerConfig,
    WeightAverage,
    evaluate,
    fit,
)
from relational_rnn.training.problem import in_numbers_of

LOOP = LoopConfig(steps=12, validate_every=5, checkpoint_every=4, log_every=1)
OPTIMIZER = OptimizerConfig(learning_rate=0.05, warmup_steps=2, weight_decay=0.1)


class Line:
    """One weight per feature and no randomness; what it carries is a running sum that shifts every target."""

    def __init__(self, size: int) -> None:
        torch.manual_seed(3)
        self.model = nn.Linear(4, 2)
        self.size = size
        self.carried = torch.zeros(())

    def _batch(self, number: int, size: int):
        generator = torch.Generator().manual_seed(1000 + number)
        return {"x": torch.randn(size, 4, generator=generator), "valid": torch.tensor(number >= 900)}

    def train_batch(self, step: int):
        return self._batch(step, self.size)

    def valid_batches(self):
        return [self._batch(900, 30)]

    def measure(self, batch) -> Measure:
        x = batch["x"]
        shift = 0.0 if batch["valid"] else self.carried
        losses = nn.functional.cross_entropy(self.model(x), (x[:, 0] > shift).long(), reduction="none")
        if not batch["valid"]:
            self.carried = (self.carried + x.mean()).detach()
        return Measure(
            losses, self.model(x).argmax(1) == (x[:, 0] > shift).long(), torch.zeros(len(x), dtype=torch.int64)
        )

    def state_dict(self):
        return {"carried": self.carried}

    def load_state_dict(self, state):
        self.carried = state["carried"]


class Doubled(Line):
    """Two batches of `Line` as one; nothing is carried."""

    def train_batch(self, step: int):
        parts = [self._batch(number, self.size) for number in (2 * step, 2 * step + 1)]
        return {"x": torch.cat([part["x"] for part in parts]), "valid": torch.tensor(True)}


def run(folder, problem=None, *, loop=LOOP, resume=False, on_progress=lambda p: None, **extras):
    return fit(
        problem or Line(7),
        folder,
        optimizer=OPTIMIZER,
        loop=loop,
        seed=5,
        configuration={},
        resume=resume,
        on_progress=on_progress,
        **extras,
    )


def weights(folder):
    return torch.load(folder / "last.ckpt", weights_only=True)["model"]["weight"]


def test_two_batches_added_up_are_one_of_twice_the_size(tmp_path, monkeypatch):
    monkeypatch.setattr(Line, "load_state_dict", lambda self, state: None)
    monkeypatch.setattr(Line, "measure", _without_shift)
    run(tmp_path / "parts", Line(7), accumulate=2)
    run(tmp_path / "whole", Doubled(7))
    run(tmp_path / "other", Line(7))
    torch.testing.assert_close(weights(tmp_path / "parts"), weights(tmp_path / "whole"))
    assert not torch.allclose(weights(tmp_path / "parts"), weights(tmp_path / "other"))
    assert [row["questions_seen"] for row in metrics(tmp_path / "parts")] == ["70", "140", "168"]


def _without_shift(self, batch) -> Measure:
    right = (batch["x"][:, 0] > 0).long()
    logits = self.model(batch["x"])
    losses = nn.functional.cross_entropy(logits, right, reduction="none")
    return Measure(losses, logits.argmax(1) == right, torch.zeros_like(right))


EXTRAS = {
    "carried": {},
    "added up": {"accumulate": 3},
    "mean": {"averaging": AveragingConfig(kind="mean", start=3)},
    "ema": {"averaging": AveragingConfig(kind="ema", decay=0.8), "accumulate": 2, "best_by": "loss"},
}


@pytest.mark.parametrize("seconds", [None, 1e-9])
@pytest.mark.parametrize("stop", [2, 6, 11])
@pytest.mark.parametrize("extras", EXTRAS)
def test_a_run_broken_off_resumes_exactly(extras, stop, seconds, tmp_path):
    loop = dataclasses.replace(LOOP, checkpoint_seconds=seconds)
    given = EXTRAS[extras]
    run(tmp_path / "undisturbed", loop=loop, **given)
    with pytest.raises(Stop):
        run(tmp_path / "run", loop=loop, on_progress=stop_at(stop), **given)
    run(tmp_path / "run", loop=loop, resume=True, **given)
    assert metrics(tmp_path / "run") == metrics(tmp_path / "undisturbed")
    got, expected = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("run", "undisturbed"))
    assert got == expected
    a, b = (torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("run", "undisturbed"))
    torch.testing.assert_close(a["relational_rnn"]["carried"], b["relational_rnn"]["carried"], rtol=0, atol=0)
    torch.testing.assert_close(a["relational_rnn"]["average"], b["relational_rnn"]["average"], rtol=0, atol=0)
    assert torch.equal(a["model"]["weight"], b["model"]["weight"])


def test_validation_and_the_saved_weights_are_the_average_and_training_goes_on_with_its_own(tmp_path):
    seen = []

    class Watched(Line):
        def measure(self, batch):
            seen.append((bool(batch["valid"]), self.model.weight.detach().clone()))
            return super().measure(batch)

    loop = dataclasses.replace(LOOP, steps=10, validate_every=10, checkpoint_every=10)
    run(tmp_path / "plain", Watched(7), loop=loop)
    plain = [weight for valid, weight in seen if not valid]
    last = weights(tmp_path / "plain")
    seen.clear()
    run(tmp_path / "run", Watched(7), loop=loop, averaging=AveragingConfig(kind="mean", start=6))
    assert all(torch.equal(a, b) for a, b in zip(plain, [w for valid, w in seen if not valid], strict=True))
    average = torch.stack([*plain[7:], last]).mean(0)  # after the updates 6, 7, 8 and 9
    (judged,) = [weight for valid, weight in seen if valid]
    torch.testing.assert_close(judged, average)
    assert torch.equal(load_file(tmp_path / "run" / "model.safetensors")["weight"], judged)
    assert torch.equal(weights(tmp_path / "run"), last)


def test_the_exponential_average_follows_its_rule():
    layer = nn.Linear(1, 1, bias=False)
    average = WeightAverage(layer, AveragingConfig(kind="ema", decay=0.5))
    expected = None
    for step, value in enumerate((1.0, 4.0, -2.0, 8.0, 3.0, 5.0, 0.0, 1.0, 9.0, 2.0)):
        nn.init.constant_(layer.weight, value)
        average.update(step)
        kept = min(0.5, (1 + step) / (10 + step))
        expected = value if expected is None else kept * expected + (1 - kept) * value
    with average.in_place():
        assert layer.weight.item() == pytest.approx(expected)
    assert layer.weight.item() == 2.0


def test_the_best_weights_can_be_those_of_the_least_loss(tmp_path, monkeypatch):
    from relational_rnn.training import loop

    dictated = iter([(0.9, 1.0), (0.5, 0.7), (0.6, 0.8)])
    monkeypatch.setattr(loop, "evaluate", lambda problem, batches, around: toy.dictated(*next(dictated)))
    told = []
    outcome = run(tmp_path / "run", on_progress=told.append, best_by="loss")
    assert (outcome.best_step, outcome.valid_loss, outcome.valid_accuracy) == (10, 0.7, 0.5)
    assert told[-1].best_by == "loss"
    from relational_rnn.training.progress import describe_progress

    assert describe_progress(told[-1]).endswith("valid loss 0.800")


def test_dropout_of_every_part_has_a_seed_of_its_own(tmp_path, monkeypatch):
    seeds = []
    seed = torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", lambda value: seeds.append(value) or seed(value))
    run(tmp_path / "run", accumulate=2)
    assert len(set(seeds)) >= 2 * LOOP.steps


@pytest.mark.parametrize(
    ("problem", "changes"),
    [
        ("kind is not a known choice", {"kind": "median"}),
        ("start would have no effect on an average of kind 'none'", {"start": 5}),
        ("decay would have no effect on an average of kind 'mean'", {"kind": "mean", "decay": 0.5}),
        ("decay must lie between 0 and 1", {"kind": "ema", "decay": 1.0}),
        ("start must be a whole number of at least 0", {"kind": "mean", "start": -1}),
    ],
)
def test_impossible_averages_are_refused(problem, changes):
    with pytest.raises(InputError, match=problem):
        AveragingConfig(**changes)


def test_impossible_extras_are_refused(tmp_path):
    with pytest.raises(InputError, match="accumulate must be a whole number of at least 1"):
        run(tmp_path / "run", accumulate=0)
    with pytest.raises(InputError, match="best_by is not a known choice"):
        run(tmp_path / "run", best_by="luck")
    assert not (tmp_path / "run").exists()


def test_problems_without_extras_are_as_before():
    from relational_rnn.training import Carrier

    assert not isinstance(toy.Toy(1), Carrier)
    assert isinstance(Line(1), Carrier)


class Pair(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    numbers: torch.Tensor
    others: tuple[Pair, list[dict[str, torch.Tensor | None]]]
    name: str


def test_a_batch_of_any_form_can_have_other_floating_point_numbers():
    whole, half = torch.tensor([3, 4]), torch.tensor([0.5, 1.0, 2.0])
    batch = Frozen(half, (Pair(whole, half), [{"a": half, "b": None}]), "n")
    other = in_numbers_of(torch.float64, batch)
    assert torch.equal(other.numbers, half.double())
    assert other.numbers.dtype == other.others[0].y.dtype == other.others[1][0]["a"].dtype == torch.float64
    assert other.others[0].x is whole
    assert other.others[1][0]["b"] is None
    assert (type(other), type(other.others[0]), other.name) == (Frozen, Pair, "n")
    assert in_numbers_of(None, batch) is batch


def test_validation_leaves_every_part_of_a_model_in_the_mode_that_it_had():
    problem = toy.Toy(1)
    problem.model.drop.eval()
    evaluate(problem, problem.valid_batches())
    modes = {name: module.training for name, module in problem.model.named_children()}
    assert modes == {"core": True, "drop": False, "head": True}
