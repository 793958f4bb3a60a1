"""The weights of a model: its first ones, and those of a run folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from relational_rnn._check import InputError, describe
from relational_rnn._reading.building import sized_by
from relational_rnn._reading.guard import damaged
from relational_rnn._reading.tensors import read_safetensors
from relational_rnn.training.run_folder import CONFIG

ModelT = TypeVar("ModelT", bound=nn.Module)


@contextlib.contextmanager
def initial_weights(seed: int) -> Iterator[None]:
    """Where a model is made whose initial weights are a function of the seed; random numbers go on as before after it.

    One thread makes them: orthogonal matrices have other last bits with several.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def load_weights(make: Callable[[], ModelT], folder: Path) -> ModelT:
    """Make the model of a run, and put the best weights of the run into it.

    Returns:
        the model, in evaluation mode.

    Raises:
        InputError: there are no weights yet, or they cannot be read, or belong to another model than that of the
            configuration.
    """
    path = folder / "model.safetensors"
    if not path.exists():
        hint = "weights are saved at the first validation; let the run go on with resume (--resume)"
        raise InputError(describe(str(folder), "the run has no weights yet", hint=hint))
    tensors, _ = read_safetensors(path, problem="the weights cannot be read")
    where = str(folder / CONFIG)
    with sized_by(tensors, where=where, problem="no model can be built from this configuration"):
        model = make()
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    there = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    odd = sorted(name for name in {*own, *there} if own.get(name) != there.get(name))
    if odd:
        got, expected = (f"{odd[0]} {shapes.get(odd[0], 'is not there')}" for shapes in (there, own))
        hint = "a run of an earlier version is not always one of this: then train again."
        raise InputError(
            describe(str(path), "the weights belong to another model", got=got, expected=expected, hint=hint)
        )
    with damaged(path, "the weights belong to another model"):
        model.load_state_dict(tensors)
    return model.eval()
