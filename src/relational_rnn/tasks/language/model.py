"""A language model around any recurrent core: embedding, projections, layers of cores, softmax.

Shape legend: B sequences, T steps, V vocabulary, E embedding size, S width of the stream, F features of the softmax,
M predictions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from relational_rnn._check import (
    InputError,
    check_choice,
    check_flags,
    check_positive,
    check_shape,
    describe,
    is_number,
)
from relational_rnn.nn import (
    GRU,
    LSTM,
    RNN,
    AttentionLSTM,
    Core,
    FastWeightSizes,
    MemorySizes,
    RelationalMemory,
    RivalSizes,
    State,
    Transformer,
    UniversalTransformer,
)
from relational_rnn.nn.core import map_state
from relational_rnn.nn.matching import build_matched

Softmax = Literal["tied", "free", "adaptive"]
"""What turns features into probabilities: the embedding itself, a matrix of its own, or one matrix per band of word
frequencies."""
BAND_SHRINKAGE = 4
"""Every band of the adaptive softmax has so many times fewer features than the one before."""
CHUNK = 256
"""Tokens of a long text that are read at once; another number changes nothing beyond rounding."""
LanguageState = tuple[State, ...]
"""The state of every layer's core, the lowest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageModelConfig:
    """Sizes and choices of everything around the cores, the same for every core."""

    embedding_size: int = 128
    """Features of a token."""
    core_input: int | None = None
    """Features of a projection from the embedding to the first core; None gives it the embedding as it is."""
    layers: int = 1
    """Cores on top of each other, all of the same kind and size."""
    residual: bool = False
    """Every core reads a layer norm of one stream and adds what it has to say to it, as the parts of a Transformer do;
    without, a core reads the output of the one below."""
    softmax: Softmax = "tied"
    """tied: the embedding, after a projection to its size; free: a matrix on the last core's output; adaptive: after
    that projection, a small matrix for each band of frequencies (Grave et al. 2017, arXiv 1609.04309)."""
    cutoffs: tuple[int, ...] = ()
    """Adaptive softmax: the numbers of the words at which a new band begins; words are numbered by frequency."""
    window: int = 256
    """How many steps back the cores that keep every step see (transformer, attention), the present one included."""
    word_dropout: float = 0.0
    """Share of the vocabulary that is 0 in the embedding of a batch."""
    input_dropout: float = 0.0
    """Share of an embedded token's features that are dropped, the same ones along a sequence."""
    layer_dropout: float = 0.0
    """The same of the features between two layers."""
    output_dropout: float = 0.0
    """The same of the last core's features."""
    weight_dropout: float = 0.0
    """Share of the entries of the recurrent matrices that are dropped, the same ones along a sequence."""

    def __post_init__(self) -> None:
        where = "LanguageModelConfig"
        check_positive(where, embedding_size=self.embedding_size, layers=self.layers, window=self.window)
        if self.core_input is not None:
            check_positive(where, core_input=self.core_input)
        check_flags(where, residual=self.residual)
        check_choice(where, "softmax", self.softmax, get_args(Softmax))
        cutoffs = self.cutoffs
        whole = isinstance(cutoffs, tuple | list) and all(type(cutoff) is int and cutoff > 0 for cutoff in cutoffs)
        if not whole or list(cutoffs) != sorted(set(cutoffs)):
            problem = "cutoffs must be whole numbers of at least 1, rising"
            raise InputError(describe(where, problem, got=repr(cutoffs)))
        if (self.softmax == "adaptive") != bool(cutoffs):
            problem = "cutoffs belong to the adaptive softmax, and it needs some"
            raise InputError(describe(where, problem, got=f"softmax={self.softmax!r}, cutoffs={cutoffs}"))
        least = BAND_SHRINKAGE ** len(cutoffs)
        if self.embedding_size < least:
            problem = "the rarest band would have no features: embedding_size is too small for so many cutoffs"
            raise InputError(describe(where, problem, got=self.embedding_size, expected=f"at least {least}"))
        for name in ("word_dropout", "input_dropout", "layer_dropout", "output_dropout", "weight_dropout"):
            share = getattr(self, name)
            if not is_number(share) or not 0 <= share < 1:
                raise InputError(describe(where, f"{name} must be a share", got=repr(share), expected="0 <= p < 1"))
        if self.layer_dropout and self.layers == 1:
            raise InputError(describe(where, "layer_dropout would have no effect: there is one layer"))


class LanguageModel(nn.Module):
    """Predicts the next token from all tokens before it, carried in the state of its cores.

    You pass the state in and get it back. It is never detached here: for truncated backpropagation pass
    `detached(state)`. Cores that keep every step (`Transformer`, `AttentionLSTM`) get the configuration's window, so
    that no state grows without end. Any cut of a text into chunks gives the same predictions.

    Args:
        vocabulary_size: V.
        core: the lowest layer's; the others are made like it. Its input size is `config.core_input`, or E.
        config: everything around the cores.

    Shape:
        tokens [B, T] int64; features [B, T, F], F = E, or the output size of the last core with a free softmax.

    Raises:
        InputError: the core's input size does not fit; a `UniversalTransformer`, whose state cannot be bounded;
            `weight_dropout` for a core without recurrent matrices; a cutoff beyond V.

    Example:
        >>> from relational_rnn.nn import RelationalMemory
        >>> config = LanguageModelConfig(embedding_size=12)
        >>> model = LanguageModel(65, RelationalMemory(12, 2, 8, num_heads=2), config)
        >>> features, state = model(torch.zeros(3, 7, dtype=torch.int64))
        >>> features, state = model(torch.zeros(3, 5, dtype=torch.int64), detached(state))
        >>> model.log_probabilities(features).shape
        torch.Size([3, 5, 65])
    """

    def __init__(self, vocabulary_size: int, core: Core, config: LanguageModelConfig) -> None:
        where = "LanguageModel"
        check_positive(where, vocabulary_size=vocabulary_size)
        stream = config.core_input or config.embedding_size
        if core.input_size != stream:
            problem = "the core's input size does not fit the model"
            raise InputError(describe(where, problem, got=core.input_size, expected=stream))
        if isinstance(core, UniversalTransformer):
            problem = "a Universal Transformer cannot read a text without end: its positions are absolute"
            raise InputError(describe(where, problem, hint="transformer is its rival with a bounded state."))
        if config.cutoffs and config.cutoffs[-1] >= vocabulary_size:
            problem = "the adaptive softmax has a cutoff beyond the vocabulary"
            raise InputError(describe(where, problem, got=config.cutoffs, expected=f"below {vocabulary_size:,}"))
        if config.weight_dropout:
            recurrent_weights(core)
        super().__init__()
        self.config = config
        self.vocabulary_size = vocabulary_size
        self.embedding = nn.Embedding(vocabulary_size, config.embedding_size)
        nn.init.normal_(self.embedding.weight, std=config.embedding_size**-0.5)
        self.core_input = nn.Linear(config.embedding_size, stream) if config.core_input is not None else None
        if isinstance(core, Transformer | AttentionLSTM) and core.window is None:
            core = core.alike(window=config.window)
        width = stream if config.residual else core.output_size
        self.cores = nn.ModuleList([core, *(core.alike(input_size=width) for _ in range(config.layers - 1))])
        self.norms = self.outs = self.last_norm = None
        if config.residual:
            self.norms = nn.ModuleList(nn.LayerNorm(stream) for _ in self.cores)
            self.outs = nn.ModuleList(nn.Linear(core.output_size, stream) for _ in self.cores)
            self.last_norm = nn.LayerNorm(stream)
        free = config.softmax == "free"
        self.projection = None if free else nn.Linear(width, config.embedding_size)
        self.decoder = nn.Linear(width, vocabulary_size) if free else None
        self.bias = nn.Parameter(torch.zeros(vocabulary_size)) if config.softmax == "tied" else None
        self.adaptive = None
        if config.softmax == "adaptive":
            self.adaptive = nn.AdaptiveLogSoftmaxWithLoss(
                config.embedding_size, vocabulary_size, list(config.cutoffs), div_value=BAND_SHRINKAGE
            )

    @classmethod
    def build(
        cls,
        vocabulary_size: int,
        core_name: str,
        sizes: MemorySizes,
        config: LanguageModelConfig | None = None,
        *,
        rivals: RivalSizes | None = None,
        fast: FastWeightSizes | None = None,
    ) -> LanguageModel:
        """The model with the relational memory of `sizes`, or with a rival of a size that gives it as many parameters.

        Raises:
            InputError: see the class and `nn.matching.build_matched`.
        """
        around = config or LanguageModelConfig()

        def wrap(core: Core) -> LanguageModel:
            return cls(vocabulary_size, core, around)

        size = around.core_input or around.embedding_size
        return wrap(build_matched(core_name, sizes, size, wrap, rivals=rivals, fast=fast))

    @property
    def features(self) -> int:
        """Of what the softmax reads, F."""
        return self.config.embedding_size if self.decoder is None else self.decoder.in_features

    def initial_state(self, batch_size: int) -> LanguageState:
        """The state before the first token of `batch_size` texts."""
        return tuple(self.core(layer).initial_state(batch_size) for layer in range(len(self.cores)))

    def core(self, layer: int = 0) -> Core:
        """The core of a layer, the lowest by default."""
        core = self.cores[layer]
        assert isinstance(core, Core)
        return core

    def forward(
        self, tokens: Tensor, state: LanguageState | None = None, *, reset: Tensor | None = None
    ) -> tuple[Tensor, LanguageState]:
        """Read tokens.

        Args:
            tokens: [B, T] int64, below V.
            state: that after the tokens before; None for `initial_state(B)`.
            reset: [B, T] booleans; true starts a row anew *before* that token.

        Returns:
            (features [B, T, F] of the prediction after every token, the state after the last one).
        """
        check_shape("LanguageModel", "tokens", tokens, {"B": None, "T": None})
        if state is not None and len(state) != len(self.cores):
            raise InputError(describe("LanguageModel", "state has one entry for each layer", got=len(state)))
        config, training = self.config, self.training
        weight = drop_alike(self.embedding.weight, config.word_dropout, training)
        # Rows of length 1, so that their products with features start small; a core wants features of size 1.
        stream = F.embedding(tokens, weight) * config.embedding_size**0.5
        stream = drop_alike(stream, config.input_dropout, training)
        if self.core_input is not None:
            stream = self.core_input(stream)

        def own(tensor: Tensor) -> Tensor:  # autocast leaves states and a linear layer's output in another precision
            return tensor.to(weight.dtype) if tensor.is_floating_point() else tensor

        after: list[State] = []
        single = tokens.shape[1] == 1 and reset is None and not training  # a step costs less than a sequence of one
        for layer in range(len(self.cores)):
            core = self.core(layer)
            start = None if state is None else map_state(own, state[layer])
            read = own(stream if self.norms is None else self.norms[layer](stream))
            if single and start is not None:
                y, end = core.step(read[:, 0], start)
                y = y.unsqueeze(1)
            elif training and config.weight_dropout:
                parameters = dict(core.named_parameters())
                dropped = {n: F.dropout(parameters[n], config.weight_dropout) for n in recurrent_weights(core)}
                y, end = functional_call(core, dropped, (read, start), {"reset": reset})
            else:
                y, end = core(read, start, reset=reset)
            after.append(end)
            last = layer == len(self.cores) - 1
            y = drop_alike(y, config.output_dropout if last else config.layer_dropout, training)
            stream = y if self.outs is None else stream + self.outs[layer](y)
        if self.last_norm is not None:
            stream = self.last_norm(stream)
        return (stream if self.projection is None else self.projection(stream)), tuple(after)

    def read(self, tokens: Tensor) -> tuple[Tensor, LanguageState]:
        """Read texts [B, T] of any length: (features [B, F] of the prediction after the last token, the state then)."""
        first, *others = tokens.split(CHUNK, 1)
        features, state = self(first)
        for chunk in others:
            features, state = self(chunk, state)
        return features[:, -1], state

    def step(self, tokens: Tensor, state: LanguageState) -> tuple[Tensor, LanguageState]:
        """One token [B] of each text, and the state before it, to (log probabilities of the next [B, V], the state)."""
        features, state = self.forward(tokens.unsqueeze(1), state)
        return self.log_probabilities(features[:, 0]), state

    def logits(self, features: Tensor) -> Tensor:
        """Unnormalised log probabilities [..., V]; those of the adaptive softmax are normalised already."""
        if self.adaptive is not None:
            with torch.autocast(features.device.type, enabled=False):  # the bands' dtypes must be one
                flat = self.adaptive.log_prob(features.flatten(0, -2).to(self.embedding.weight.dtype))
            return flat.unflatten(0, features.shape[:-1])
        if self.decoder is not None:
            return self.decoder(features)
        return F.linear(features, self.embedding.weight, self.bias)

    def log_probabilities(self, features: Tensor) -> Tensor:
        """Of every token as the next one, [..., V], in float32 at least."""
        logits = self.logits(features)
        if self.adaptive is not None:
            return logits
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)

    def score(self, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """How well the right tokens, `targets` [M] int64, were predicted from `features` [M, F].

        Returns:
            (the negative log probability of each [M], in nats; booleans [M]: it was the most probable one).
        """
        if self.adaptive is not None:
            with torch.autocast(features.device.type, enabled=False):
                features = features.to(self.embedding.weight.dtype)
                found = self.adaptive(features, targets).output
                return -found, self._is_best(features.detach(), targets, found.detach())
        logits = self.logits(features)
        return F.cross_entropy(logits, targets, reduction="none"), logits.detach().argmax(-1) == targets

    def _is_best(self, features: Tensor, targets: Tensor, found: Tensor) -> Tensor:
        """Whether the adaptive softmax gives the right tokens [M] the most; `found` are their log probabilities."""
        assert self.adaptive is not None
        # The rare bands cost most: they are looked at only where no word of the first one beats the right token.
        frequent = self.adaptive.head(features).log_softmax(-1)[:, : self.adaptive.shortlist_size].amax(-1)
        right = found >= frequent - 1e-4  # more than rounding
        right[right.clone()] = self.adaptive.predict(features[right]) == targets[right]
        return right


def drop_alike(x: Tensor, p: float, training: bool) -> Tensor:
    """`x` with the same entries dropped all along its second axis: features [B, T, F] at every step (Gal and Ghahramani
    2016), or whole words of an embedding [V, E] (Merity et al. 2018, arXiv 1708.02182)."""
    if not training or p == 0:
        return x
    return x * F.dropout(x.new_ones(x.shape[0], 1, *x.shape[2:]), p)


def recurrent_weights(core: Core) -> list[str]:
    """The names of the matrices that a step of `core` applies to what it carries (Merity et al. 2018).

    Raises:
        InputError: the core has none.

    >>> recurrent_weights(LSTM(5, 8))
    ['weight_hh_l0']
    """
    if isinstance(core, RNN | GRU | LSTM):
        return ["weight_hh_l0"]
    if isinstance(core, AttentionLSTM):
        return ["lstm.weight_hh_l0"]
    if isinstance(core, RelationalMemory):
        kinds = {"qkv", "mlp", "gate_memory"}
        names = [name for name, p in core.named_parameters() if p.dim() == 2]
        return [name for name in names if name.startswith("cells.") and kinds & {*name.split(".")}]
    name = type(core).__name__
    problem = f"weight_dropout is not defined for the core {name}: it has no recurrent matrices of its own"
    hint = "give weight_dropout=0, or one of the cores rmc, rnn, gru, lstm, attention."
    raise InputError(describe("LanguageModelConfig", problem, hint=hint))


def map_states(function: Callable[[Tensor], Tensor], state: LanguageState) -> LanguageState:
    """Apply `function` to every tensor of every layer's state."""
    return tuple(map_state(function, layer) for layer in state)


def detached(state: LanguageState) -> LanguageState:
    """The same state, with no gradient into the past: where backpropagation through time is cut."""
    return map_states(torch.Tensor.detach, state)
