"""Where words stand in a sentence: held against loops over words."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from relational_rnn.tasks.babi.sentences import LinkedWords, RecalledWords, WordMatches

STATEMENTS = torch.tensor([[[3, 9, 1, 0], [7, 0, 0, 0], [3, 3, 5, 2]], [[2, 2, 5, 4], [0, 0, 0, 0], [8, 7, 1, 2]]])


def test_matches_add_a_vector_for_every_pair_of_places_with_the_same_word():
    matches = WordMatches(max_words=5, size=6).double()
    questions = torch.tensor([[3, 7, 0], [2, 5, 1]])
    got = matches(STATEMENTS, questions)
    expected = torch.zeros(2, 3, 6, dtype=torch.float64)
    for m in range(2):
        for t in range(3):
            for w, word in enumerate(STATEMENTS[m, t].tolist()):
                for v, asked in enumerate(questions[m].tolist()):
                    if word and word == asked:
                        expected[m, t] += matches.vectors[w, v]
    assert expected.abs().sum() > 0
    assert_close(got, expected, rtol=0, atol=1e-12)


def test_what_is_learned_of_one_name_holds_for_all():
    matches = WordMatches(max_words=5, size=6)
    renamed = torch.tensor([0, 4, 8, 1, 2, 9, 6, 5, 3, 7])
    questions = torch.tensor([[3, 7, 0], [2, 5, 1]])
    assert_close(matches(renamed[STATEMENTS], renamed[questions]), matches(STATEMENTS, questions))


def degrees_by_loops(linked: LinkedWords, sentences: list[list[int]], question: list[int]) -> list[dict[int, float]]:
    """h_k of every word, for k from 1, from sets of words."""
    told = [{word for word in sentence if word} for sentence in sentences]
    told = [words for words in told if words]
    every = set().union(*told, *[{word for word in question if word}])
    gates = {w: linked.links[w - 1].sigmoid().item() * (1 - sum(w in s for s in told) / len(told)) for w in every}
    degree = {w: float(w in question) for w in every}
    nearest, found = {w: 1 - degree[w] for w in every}, []
    for _ in range(linked.steps):
        linking = [sum(gates[w] * degree[w] for w in words) for words in told]
        reached = {w: sum(s for s, words in zip(linking, told, strict=True) if w in words) for w in every}
        degree = {w: (1 - math.exp(-2 * reached[w])) * nearest[w] for w in every}
        nearest = {w: nearest[w] * (1 - degree[w]) for w in every}
        found.append(degree)
    return found


def test_linked_words_are_counted_from_sentence_to_sentence(rng):
    linked = LinkedWords(words=9, steps=3, max_words=5, size=6).double()
    with torch.no_grad():
        linked.links.copy_(torch.randn(9, generator=rng))
    # a chain 1 - 2 - 3 - 4 in disorder, with a word twice in a sentence; then words of two sentences, and padding
    statements = torch.tensor(
        [[[3, 4, 7, 0], [2, 2, 3, 0], [1, 2, 0, 0], [8, 9, 7, 0]], [*[[5, 6, 0, 0]] * 2, *[[0] * 4] * 2]]
    )
    questions = torch.tensor([[1, 0, 0], [6, 9, 1]])
    degrees = linked.degrees(statements, questions)
    assert degrees.shape == (2, 3, 10)
    expected = torch.zeros(2, 3, 10, dtype=torch.float64)
    added = torch.zeros(2, 4, 6, dtype=torch.float64)
    for m in range(2):
        for k, found in enumerate(degrees_by_loops(linked, statements[m].tolist(), questions[m].tolist())):
            for word, degree in found.items():
                expected[m, k, word] = degree
            for t in range(4):
                for w, word in enumerate(statements[m, t].tolist()):
                    if word:
                        added[m, t] += expected[m, k, word] * linked.vectors[k, w]
    assert_close(degrees, expected, rtol=0, atol=1e-12)
    # words 2, 3 and 4, one step after the other, never the word of the question
    assert degrees[0, :, 1:5].gt(0).tolist() == [
        [False, True, *two] for two in ([False] * 2, [True, False], [True] * 2)
    ]
    assert_close(linked(statements, questions), added, rtol=0, atol=1e-12)


def test_words_of_every_sentence_link_nothing():
    linked = LinkedWords(words=9, steps=2, max_words=5, size=6)
    statements = torch.tensor([[[3, 9, 1, 0], [7, 9, 0, 0], [4, 9, 5, 2]]])
    assert not linked(statements, torch.tensor([[9, 8]])).any()


def test_recalled_words_score_every_word_by_its_embedding(rng):
    recalled = RecalledWords(found=7, looks=2, max_words=5, size=6).double()
    embedding = torch.randn(9, 6, generator=rng, dtype=torch.float64)
    found = torch.randn(2, 7, generator=rng, dtype=torch.float64)
    got = recalled(found, embedding, STATEMENTS)
    queries = recalled.queries(found).view(2, 2, 6)
    expected = torch.zeros(2, 3, 6, dtype=torch.float64)
    for m in range(2):
        for t in range(3):
            for w, word in enumerate(STATEMENTS[m, t].tolist()):
                for k in range(2):
                    if word:
                        expected[m, t] += (queries[m, k] @ embedding[word - 1]) * recalled.vectors[k, w]
    assert_close(got, expected, rtol=0, atol=1e-12)
    assert_close(recalled.scores(found, embedding)[1, 1, 4], queries[1, 1] @ embedding[4])
    strengths = recalled.strengths(found, embedding, STATEMENTS)
    added = sum((queries[1, k] @ embedding[7 - 1]) * recalled.vectors[k, 1] for k in range(2))
    assert_close(strengths[1, 2, 1], torch.as_tensor(added).norm())
    assert strengths[0, 1].gt(0).tolist() == [True, False, False, False]


def test_target_losses_are_cross_entropies_with_every_given_word_alike(rng):
    recalled = RecalledWords(found=7, looks=2, max_words=5, size=6).double()
    embedding = torch.randn(9, 6, generator=rng, dtype=torch.float64)
    found = torch.randn(3, 7, generator=rng, dtype=torch.float64)
    words = torch.tensor([[3, 9, 0, 1], [0, 0, 0, 0], [5, 0, 0, 0]])
    scores = embedding @ recalled.queries(found).view(3, 2, 6)[:, 0, :, None]  # of the first look
    logs = scores[..., 0].log_softmax(1)
    expected = torch.stack([-(logs[0, 2] + logs[0, 8] + logs[0, 0]) / 3, logs.new_zeros(()), -logs[2, 4]])
    assert_close(recalled.target_losses(found, embedding, words), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [0, 3])
def test_no_sentence_is_no_vector(steps):
    none = torch.zeros(2, steps, 4, dtype=torch.int64)
    assert LinkedWords(words=9, steps=2, max_words=5, size=6)(none, torch.tensor([[3, 0], [1, 2]])).abs().sum() == 0
    assert WordMatches(max_words=5, size=6)(none, torch.tensor([[3, 0], [1, 2]])).abs().sum() == 0
    recalled = RecalledWords(found=7, looks=2, max_words=5, size=6)
    got = recalled(torch.ones(2, 7), torch.ones(9, 6), none)
    assert got.shape == (2, steps, 6)
    assert got.abs().sum() == 0
