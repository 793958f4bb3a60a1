"""Text that a model goes on with, token by token: a step costs the same time and memory however long the text is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from relational_rnn._check import InputError, check_positive, check_range, describe
from relational_rnn.tasks.language.model import LanguageModel
from relational_rnn.tasks.language.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How the next token is drawn from the model's probabilities."""

    temperature: float = 1.0
    """Log probabilities are divided by it: below 1 the probable gets more probable; 0 always takes the most probable
    token."""
    top_k: int | None = None
    """Draw only from the k most probable tokens; None for all."""
    top_p: float | None = None
    """Draw only from the most probable tokens that have this probability together (Holtzman et al. 2020), after
    `top_k`; None for all."""

    def __post_init__(self) -> None:
        where = "Sampling"
        check_range(where, "temperature", self.temperature, 0)
        if self.top_k is not None:
            check_positive(where, top_k=self.top_k)
        if self.top_p is not None:
            check_range(where, "top_p", self.top_p, 0, 1, above=True)
        if self.temperature == 0 and (self.top_k is not None or self.top_p is not None):
            problem = "top_k and top_p would have no effect at temperature 0, which takes the most probable token"
            raise InputError(describe(where, problem, got=f"top_k={self.top_k}, top_p={self.top_p}"))

    def probabilities(self, log_probabilities: Tensor) -> Tensor:
        """The probabilities that tokens are drawn by, [..., V], from log probabilities [..., V].

        >>> Sampling(top_p=0.7).probabilities(torch.tensor([0.5, 0.3, 0.2]).log())
        tensor([0.6250, 0.3750, 0.0000])
        """
        if self.temperature == 0:
            best = log_probabilities.argmax(-1, keepdim=True)
            return torch.zeros_like(log_probabilities).scatter_(-1, best, 1.0)
        scaled = (log_probabilities / self.temperature).softmax(-1)
        if self.top_k is not None and self.top_k < scaled.shape[-1]:
            least = scaled.topk(self.top_k, -1)
            scaled = torch.zeros_like(scaled).scatter_(-1, least.indices, least.values)
        if self.top_p is not None:
            scaled = scaled / scaled.sum(-1, keepdim=True)
            falling, order = torch.sort(scaled, dim=-1, descending=True, stable=True)
            falling = falling.where(falling.cumsum(-1) - falling < self.top_p, 0.0)  # the first one always stays
            scaled = torch.zeros_like(scaled).scatter_(-1, order, falling)
        return scaled / scaled.sum(-1, keepdim=True)


def generate_tokens(
    model: LanguageModel, prompt: Sequence[int], *, sampling: Sampling | None = None, seed: int = 0
) -> Iterator[int]:
    """Tokens that follow a prompt, without end; each is drawn when it is asked for, and only the state is kept.

    Args:
        model: read in evaluation mode, and put back into its mode when the iterator is closed.
        prompt: at least one token.
        sampling: None draws from the model's probabilities as they are.
        seed: of the draws.

    Raises:
        InputError: the prompt is empty, or has a number that is no token.

    Example:
        >>> from relational_rnn.nn import GRU
        >>> from relational_rnn.tasks.language.model import LanguageModelConfig
        >>> model = LanguageModel(5, GRU(8, 8), LanguageModelConfig(embedding_size=8))
        >>> len(list(itertools.islice(generate_tokens(model, [0, 3]), 100)))
        100
    """
    if not len(prompt):
        raise InputError(describe("generate", "the prompt holds no token"))
    wrong = [token for token in prompt if not 0 <= token < model.vocabulary_size]
    if wrong:
        problem, expected = "the prompt has a number that is no token", f"0 to {model.vocabulary_size - 1}"
        raise InputError(describe("generate", problem, got=wrong[0], expected=expected))
    return _generate(model, prompt, sampling or Sampling(), seed)


def _generate(model: LanguageModel, prompt: Sequence[int], sampling: Sampling, seed: int) -> Iterator[int]:
    device, training = model.embedding.weight.device, model.training
    generator = torch.Generator().manual_seed(seed)
    model.eval()
    try:
        with torch.no_grad():
            features, state = model.read(torch.tensor([list(prompt)], device=device))
            scores = model.log_probabilities(features)
        while True:
            token = int(torch.multinomial(sampling.probabilities(scores)[0].cpu(), 1, generator=generator))
            yield token
            with torch.no_grad():
                scores, state = model.step(torch.tensor([token], device=device), state)
    finally:
        model.train(training)


def continue_text(
    model: LanguageModel,
    vocabulary: Vocabulary,
    prompt: str,
    *,
    tokens: int,
    sampling: Sampling | None = None,
    seed: int = 0,
) -> Iterator[str]:
    """The prompt and the text that the model adds, piece by piece as it comes.

    Args:
        model: of that vocabulary.
        vocabulary: between text and tokens.
        prompt: how the text begins.
        tokens: how many follow the prompt.
        sampling: see `generate_tokens`.
        seed: of the draws.

    Raises:
        InputError: the prompt holds no token, or something that the vocabulary does not know.
    """
    check_positive("generate", tokens=tokens)
    read = vocabulary.encode(prompt, where="prompt").tolist()
    following = generate_tokens(model, read, sampling=sampling, seed=seed)
    return vocabulary.pieces(itertools.chain(read, itertools.islice(following, tokens)))
