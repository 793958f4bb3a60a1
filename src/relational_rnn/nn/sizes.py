"""What can be chosen of the cores: each choice with its default and its check, once for constructors and help texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self, get_args

from relational_rnn._check import (
    InputError,
    check_choice,
    check_counts,
    check_flags,
    check_numbers,
    check_positive,
    check_range,
    describe,
)
from relational_rnn.ops.relational_scan import (
    ACTIVATION_MODES,
    BACKENDS,
    ActivationMode,
    Backend,
    Formulation,
    Settings,
)

CoreName = Literal[
    "rmc",
    "competitive",
    "rnn",
    "gru",
    "lstm",
    "attention",
    "transformer",
    "ntm",
    "dnc",
    "universal",
    "deltanet",
    "fastweights",
]
"""The names of the cores, for type checkers and help texts."""
FAST_WEIGHTS: CoreName = "fastweights"
GateStyle = Literal["unit", "memory", "competitive"]
InitialMemory = Literal["identity", "zeros", "random", "learned"]
FORGET_BIAS = 1.0


@dataclass(frozen=True, slots=True)
class Sizes:
    where: ClassVar[str]
    """Who refuses a value."""

    @classmethod
    def among(cls, arguments: Mapping[str, Any]) -> Self:
        """Those among the arguments of a constructor, by their names."""
        return cls(**{field.name: arguments[field.name] for field in fields(cls) if field.name in arguments})

    def but(self, *names: str) -> dict[str, Any]:
        """All values by name, without the named ones."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in names}


@dataclass(frozen=True, kw_only=True, slots=True)
class MemorySizes(Sizes):
    """Sizes and choices of the relational memory; its rivals are sized to the same number of parameters."""

    where: ClassVar[str] = "MemorySizes"
    mem_slots: int = 8
    """Slots of the memory."""
    head_size: int = 32
    """Numbers per head in a slot; a slot is num_heads * head_size wide."""
    num_heads: int = 4
    """Attention heads."""
    num_blocks: int = 1
    """Attention blocks per step."""
    key_size: int | None = None
    """Size of queries and keys per head; None means head_size."""
    attention_mlp_layers: int = 2
    """Layers of the MLP after the attention."""
    gate_style: GateStyle | None = "unit"
    """Gates per number (unit) or per slot (memory), slots that compete for the input (competitive), or none."""
    forget_bias: float = FORGET_BIAS
    """Constant added to the forget gate before its sigmoid; slots that compete have no such gate."""
    input_bias: float = 0.0
    """Constant added to the input gate before its sigmoid."""
    formulation: Formulation = "sonnet"
    """Arithmetic of a step: that of the authors' released code, or a plain attention block."""
    initial_memory: InitialMemory = "identity"
    """What the memory holds before the first step."""
    backend: Backend = "auto"
    """What runs its sequences: reference, cpu, triton, or auto, the fastest that can. A name is obeyed or refused."""
    activations: ActivationMode = "store"
    """Keep what the backward pass needs (store), or compute it again (recompute) to save memory in long sequences."""

    def __post_init__(self) -> None:
        where = self.where
        check_positive(where, mem_slots=self.mem_slots, head_size=self.head_size, num_heads=self.num_heads)
        check_counts(where, num_blocks=self.num_blocks, attention_mlp_layers=self.attention_mlp_layers)
        if self.key_size is not None:
            check_positive(where, key_size=self.key_size)
        check_choice(where, "gate_style", self.gate_style, (*get_args(GateStyle), None))
        check_choice(where, "formulation", self.formulation, get_args(Formulation))
        check_choice(where, "initial_memory", self.initial_memory, get_args(InitialMemory))
        check_numbers(where, forget_bias=self.forget_bias, input_bias=self.input_bias)
        check_choice(where, "backend", self.backend, BACKENDS)
        check_choice(where, "activations", self.activations, ACTIVATION_MODES)

    @property
    def width(self) -> int:
        """Numbers of a slot."""
        return self.num_heads * self.head_size

    @property
    def settings(self) -> Settings:
        """What a step computes with, besides its weights."""
        return Settings(
            formulation=self.formulation,
            num_heads=self.num_heads,
            key_size=self.head_size if self.key_size is None else self.key_size,
            forget_bias=float(self.forget_bias),
            input_bias=float(self.input_bias),
            competitive=self.gate_style == "competitive",
        )


class SizesOfLayer(MemorySizes):
    """The same for the constructors of the relational memory, where choices must also go together."""

    where = "RelationalMemory"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.formulation == "chapter" and self.gate_style is not None:
            problem, got = "the chapter's formulation has no gates", f"gate_style={self.gate_style!r}"
            hint = "pass gate_style=None, or formulation='sonnet' to have gates."
            raise InputError(describe(self.where, problem, got=got, expected="gate_style=None", hint=hint))
        if self.gate_style == "competitive" and self.forget_bias != FORGET_BIAS:
            problem = "slots that compete have no forget gate, so forget_bias would have no effect"
            got, expected = f"forget_bias={self.forget_bias!r}", f"forget_bias={FORGET_BIAS}, the default"
            hint = "leave it out, or pass gate_style='unit' or 'memory' to have a forget gate."
            raise InputError(describe(self.where, problem, got=got, expected=expected, hint=hint))


@dataclass(frozen=True, slots=True)
class Choices(Sizes):
    """Choices that some cores have, each with a default that leaves it open."""

    prefix: ClassVar[str]
    """What they are called by in options: "rivals.num_heads"."""
    having: ClassVar[Mapping[str, tuple[CoreName, ...]]]
    """The cores that have each of them."""

    @property
    def asked(self) -> dict[str, Any]:
        """The choices that differ from the default."""
        defaults = {field.name: field.default for field in fields(self)}
        return {name: value for name, value in self.but().items() if value != defaults[name]}

    def of(self, core: str) -> Self:
        """The choices that the named core has; the others are left open.

        >>> RivalSizes(num_heads=2, num_layers=5).of("dnc")
        RivalSizes(num_heads=2, num_layers=None)
        """
        return type(self)(**{name: value for name, value in self.asked.items() if core in self.having[name]})

    def check(self, where: str, *cores: str) -> None:
        """Refuse a choice that none of the named cores has."""
        for name, value in self.asked.items():
            having = self.having[name]
            if not set(having) & set(cores):
                problem = f"{self.prefix}.{name} would have no effect on {', '.join(cores)}"
                verb = "cores that have" if len(having) > 1 else "core that has"
                raise InputError(describe(where, problem, got=value, hint=f"the {verb} it: {', '.join(having)}."))


@dataclass(frozen=True, kw_only=True, slots=True)
class RivalSizes(Choices):
    """Choices of the rivals that have them; the rest of a rival is sized to the relational memory."""

    where: ClassVar[str] = "RivalSizes"
    prefix: ClassVar[str] = "rivals"
    having: ClassVar[Mapping[str, tuple[CoreName, ...]]] = {
        "num_heads": ("transformer", "ntm", "dnc", "universal", "deltanet"),
        "num_layers": ("transformer", "universal", "deltanet"),
    }
    num_heads: int | None = None
    """Heads that attend (transformer, universal, deltanet; None: 4) or read (ntm, dnc; None: the memory's number)."""
    num_layers: int | None = None
    """Layers (transformer; None: 3, deltanet; None: 2) or passes (universal; None: 4)."""

    def __post_init__(self) -> None:
        check_counts(self.where, **self.asked)


@dataclass(frozen=True, kw_only=True, slots=True)
class FastWeightSizes(Choices):
    """Sizes and choices of the fast-weight memory; its width follows from the parameters of the relational memory."""

    where: ClassVar[str] = "FastWeightSizes"
    prefix: ClassVar[str] = "fast"
    having: ClassVar[Mapping[str, tuple[CoreName, ...]]] = dict.fromkeys(
        ("num_heads", "key_size", "value_size", "reads", "carry", "max_strength"), (FAST_WEIGHTS,)
    )
    num_heads: int = 4
    """Heads, each with a matrix of its own."""
    key_size: int = 16
    """Numbers of a key: rows of a head's matrix."""
    value_size: int = 16
    """Numbers of a value: columns of a head's matrix."""
    reads: int = 1
    """Reads of a step before it writes, each with what the one before found."""
    carry: bool = True
    """Whether a step sees the output of the step before."""
    max_strength: float = 1.0
    """The strongest correction: 1 replaces what a key holds, up to 2 may turn it round."""

    def __post_init__(self) -> None:
        where = self.where
        check_positive(where, num_heads=self.num_heads, key_size=self.key_size, value_size=self.value_size)
        check_counts(where, reads=self.reads)
        check_flags(where, carry=self.carry)
        check_range(where, "max_strength", self.max_strength, 0, 2, above=True)  # above 2 what is held could grow


class SizesOfFastWeights(FastWeightSizes):
    """The same for its constructor."""

    where = "FastWeightMemory"
