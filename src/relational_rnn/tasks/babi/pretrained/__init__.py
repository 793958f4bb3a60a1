"""Trained weights that come with the package."""

from __future__ import annotations

from pathlib import Path


def pretrained_babi() -> Path:
    """The folder of fast weights that were trained on all 20 bAbI tasks; its README.md says how, and how good.

    It is a run folder without the checkpoint and the curves: `runs.load` takes it.

    Example:
        >>> from relational_rnn.runs import load
        >>> load(pretrained_babi()).config.core
        'fastweights'
    """
    return Path(__file__).parent
