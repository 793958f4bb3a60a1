"""How much memory a run on language takes, without a machine that has it.

Axes: B streams of a batch, T tokens of a chunk.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from relational_rnn._check import InputError, describe
from relational_rnn.nn.core import state_bytes
from relational_rnn.recipes.language import LanguageRun
from relational_rnn.tasks.language.model import LanguageModel, LanguageState


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MemoryPlan:
    """Bytes of a run on language, in float32. Temporary results of single operations are not counted, the largest of
    which is about as large as the logits."""

    parameters: int
    """The weights; their gradients take as much again."""
    optimizer: int
    """The two running means of AdamW."""
    average: int
    """The averaged weights, where there are some."""
    carried: int
    """The states of all streams, those of every accumulated batch."""
    activations: int
    """What one batch keeps for its backward pass, weights left out."""
    logits: int
    """Of these, one array of the size of the softmax, B * T * V."""

    @property
    def total(self) -> int:
        """Everything, gradients included."""
        return 2 * self.parameters + self.optimizer + self.average + self.carried + self.activations


def plan_memory(config: LanguageRun, vocabulary_size: int) -> MemoryPlan:
    """The memory that a run takes, found by running one batch of it with tensors that have a shape and no content.

    The cores run their plain PyTorch definitions then; a faster backend of the relational memory keeps less.

    Args:
        config: the run.
        vocabulary_size: of its text.

    Raises:
        InputError: an adaptive softmax, which takes as much as the words of a batch ask for.

    Example:
        >>> from relational_rnn.recipes.language import wikitext_103
        >>> plan = plan_memory(dataclasses.replace(wikitext_103(), batch_size=2, chunk=3), vocabulary_size=1000)
        >>> plan.logits == 4 * 2 * 3 * 1000
        True
    """
    if config.model.softmax == "adaptive":
        problem = "the memory of an adaptive softmax depends on the words of a batch"
        raise InputError(describe("plan_memory", problem, expected="a tied or a free softmax"))
    with torch.device("meta"):
        model = LanguageModel.build(
            vocabulary_size, config.core, config.memory, config.model, rivals=config.rivals, fast=config.fast
        )
        tokens = torch.zeros(config.batch_size, config.chunk, dtype=torch.int64)
        # A batch in the middle of a text: a window is full then.
        whole = torch.zeros(config.batch_size, config.model.window, dtype=torch.int64)
        with torch.no_grad():
            state = model(whole)[1]
    kept, carried = kept_for_backward(model, tokens, state)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return MemoryPlan(
        parameters=weights,
        optimizer=2 * weights,
        average=0 if config.averaging.kind == "none" else weights,
        carried=config.accumulate * carried,
        activations=kept,
        logits=4 * tokens.numel() * vocabulary_size,
    )


def kept_for_backward(model: LanguageModel, tokens: Tensor, state: LanguageState | None) -> tuple[int, int]:
    """One batch of a model in training: (bytes that it keeps for the backward pass, bytes of the state after it).

    Weights are not counted, and memory that several tensors share only once.
    """
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    held: dict[int, Tensor] = {}  # the tensors themselves, so that no storage is freed and its number used again

    def keep(tensor: Tensor) -> Tensor:
        number = tensor.untyped_storage()._cdata
        if number not in own:
            held[number] = tensor
        return tensor

    model.train()
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        features, after = model(tokens, state)
        losses, _ = model.score(features.flatten(0, 1), tokens.flatten())
        losses.mean()
    kept = sum(tensor.untyped_storage().nbytes() for tensor in held.values())
    return kept, sum(state_bytes(layer) for layer in after)
