"""Slow definitions that two tests share: an LSTM and a lookup by content, number by number, for one row."""

from __future__ import annotations

import math

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.log1p(np.exp(x))


def softmax(x):
    e = np.exp(x - np.max(x))
    return e / e.sum()


def lookup(memory, key, strength):
    """Content addressing: softmax over the rows of strength * cosine similarity, norms guarded as documented."""
    scores = []
    for row in memory:
        norms = math.sqrt(sum(a * a for a in key) + 1e-6) * math.sqrt(sum(b * b for b in row) + 1e-6)
        scores.append(strength * sum(a * b for a, b in zip(key, row, strict=True)) / norms)
    return softmax(np.array(scores))


def weights_of(core):
    return {name: parameter.detach().numpy() for name, parameter in core.named_parameters()}


def controller(weights, x, h, c, reads):
    """One step of the LSTM on [x; h; reads], gates in the order i, f, g, o; and its interface."""
    seen = np.concatenate([h, *reads])
    gates = weights["input.weight"] @ x + weights["input.bias"] + weights["recurrent.weight"] @ seen
    i, f, g, o = np.split(gates, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return h, c, weights["interface.weight"] @ h + weights["interface.bias"]


def answer(weights, h, reads):
    return weights["out.weight"] @ np.concatenate([h, *reads]) + weights["out.bias"]


def cut(interface, *sizes):
    """The interface in pieces of the given sizes, which must use it up."""
    assert sum(sizes) == len(interface)
    return np.split(interface, np.cumsum(sizes)[:-1])
