"""The weights of a model: its first ones, and those of a run folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from relational_rnn._check import InputError, describe
from relational_rnn._reading.guard import damaged
from relational_rnn._reading.tensors import check_shapes, read_safetensors, sized_by
from relational_rnn.training.run_folder import CONFIG, WEIGHTS

ModelT = TypeVar("ModelT", bound=nn.Module)


@contextlib.contextmanager
def initial_weights(seed: int) -> Iterator[None]:
    """Draw the initial weights of a model within from the seed; other random numbers go on as before.

    One thread makes them: with several, orthogonal matrices have other last bits.
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
    """The model of a run with its best weights, in evaluation mode.

    Raises:
        InputError: there are no weights yet, they cannot be read, or they do not fit the configuration's model.
    """
    path = folder / WEIGHTS
    if not path.exists():
        hint = "weights are saved at the first validation; let the run go on with resume (--resume)"
        raise InputError(describe(folder, "the run has no weights yet", hint=hint))
    tensors, _ = read_safetensors(path, problem="the weights cannot be read")
    problem = "no model can be built from this configuration"
    # what is drawn here is overwritten: the caller's random numbers stay
    with sized_by(tensors, where=str(folder / CONFIG), problem=problem), initial_weights(0):
        model = make()
    hint = "this version cannot read every run of an earlier one: train again."
    check_shapes(tensors, model, path, hint=hint)
    with damaged(path, "belongs to another model"):
        model.load_state_dict(tensors)
    return model.eval()
