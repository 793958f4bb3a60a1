"""A bAbI story: statements in order, and questions asked at points between them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    """A question of a story."""

    text: str
    """As published, without the trailing space, e.g. "Where is Mary?"."""
    answer: str
    """As published: one word, or words joined by commas (tasks 8 and 19)."""
    supports: tuple[int, ...]
    """Indices into the story's statements (from 0), in the published order."""
    at: int
    """How many statements precede the question: it may use `statements[:at]` only."""


@dataclass(frozen=True, slots=True)
class Story:
    """A story of one of the 20 tasks. Questions are in the order asked; their `at` never decreases."""

    task: int
    """1 to 20."""
    statements: tuple[str, ...]
    """As published, with the full stop, e.g. "Mary moved to the bathroom."."""
    questions: tuple[Question, ...]


TASK_NAMES: dict[int, str] = {
    1: "single-supporting-fact",
    2: "two-supporting-facts",
    3: "three-supporting-facts",
    4: "two-arg-relations",
    5: "three-arg-relations",
    6: "yes-no-questions",
    7: "counting",
    8: "lists-sets",
    9: "simple-negation",
    10: "indefinite-knowledge",
    11: "basic-coreference",
    12: "conjunction",
    13: "compound-coreference",
    14: "time-reasoning",
    15: "basic-deduction",
    16: "basic-induction",
    17: "positional-reasoning",
    18: "size-reasoning",
    19: "path-finding",
    20: "agents-motivations",
}
"""The published names, as they stand in the file names `qa<N>_<name>_{train,test}.txt`."""
