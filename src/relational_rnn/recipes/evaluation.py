"""What every measurement of a run says, whatever the run is on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from relational_rnn._reading.structure import from_json
from relational_rnn.training.json_files import Json


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RunEvaluation:
    """How a run does on what it has not learned from; each kind of run adds its own figures."""

    split: str
    """ "test" or "valid"."""
    mean_accuracy: float
    """Share of right answers, a fraction; the mean over groups where there are several."""
    loss: float
    """Mean cross entropy of an answer, in nats."""
    parameters: int
    """Trainable numbers of the whole model."""
    state_bytes: int
    """Of the core's state after the longest sequence."""
    train_seconds: float
    """Training and validation, all sittings."""
    processor_seconds: float | None
    """What the process computed in them, its threads together; None where it was not recorded."""
    evaluate_seconds: float
    """This evaluation, without reading the data."""
    core: str
    """Name of the core."""
    seed: int
    """Of the run."""
    steps: int
    """Updates done; fewer than the budget where the run is not finished."""
    report: tuple[str, ...]
    """What a user should know, such as a run that is not finished."""

    def to_json(self) -> dict[str, Json]:
        """As result.json holds it."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, entries: Mapping[str, Json], *, where: str = "result.json") -> Self:
        """What `to_json` gave.

        Raises:
            InputError: a name is missing or unknown, or a value has the wrong type; the message starts with `where`.
        """
        return from_json(cls, dict(entries), where=where)


def _plain(value: Any) -> Any:
    """The same with names of JSON, which are strings, and lists."""
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    return list(value) if isinstance(value, tuple) else value
