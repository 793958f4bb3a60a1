"""Words as vectors: sentences and questions, and where the words that a reader looks for stand in a sentence.

Shape legend: B stories, T statements, W words of a sentence, M questions, V words of a question, E embedding size, H
head size, K looks or steps.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relational_rnn._check import InputError, describe


class SentenceEncoder(nn.Module):
    """A sentence as the sum of its word embeddings, each times a learned vector of its position, then LayerNorm.

    Henaff et al. 2017, arXiv 1612.03969, eq. 1. The position vectors start around 1 with standard deviation 1/2: from
    exactly 1, a bag of words, the tasks in which the order of words matters are learned much later. Statements and
    questions share the embeddings and have position vectors of their own.

    Args:
        words: how many words there are, padding not counted.
        max_words: the longest sentence, in words.
        size: features, E.
    """

    tables = ("embedding", "statement_positions", "question_positions")
    """Parameters whose rows are looked up one by one: no matrices to an optimizer."""

    def __init__(self, words: int, max_words: int, size: int) -> None:
        super().__init__()
        self.words, self.max_words = words, max_words
        self.embedding = nn.Parameter(torch.randn(words, size) / math.sqrt(size))
        self.statement_positions = nn.Parameter(1 + torch.randn(max_words, size) / 2)
        self.question_positions = nn.Parameter(1 + torch.randn(max_words, size) / 2)
        self.statement_norm = nn.LayerNorm(size)
        self.question_norm = nn.LayerNorm(size)

    def statements(self, numbers: Tensor) -> Tensor:
        """[..., W] word numbers to [..., E]."""
        return self.statement_norm(self._sum(numbers, self.statement_positions))

    def questions(self, numbers: Tensor) -> Tensor:
        """[..., W] word numbers to [..., E]."""
        return self.question_norm(self._sum(numbers, self.question_positions))

    def _sum(self, numbers: Tensor, positions: Tensor) -> Tensor:
        width = numbers.shape[-1]
        if width > self.max_words:
            problem = "a sentence has more words than the model has positions"
            raise InputError(describe("SentenceEncoder", problem, got=width, expected=f"at most {self.max_words}"))
        # One table of (position, word) products, so that no [..., W, E] tensor is needed; row 0 of each is padding.
        padded = F.pad(self.embedding, (0, 0, 1, 0))
        table = (positions[:width, None] * padded).flatten(0, 1)
        offsets = torch.arange(width, device=numbers.device) * (self.words + 1)
        flat = (numbers + offsets).reshape(-1, width)
        return F.embedding_bag(flat, table, mode="sum").view(*numbers.shape[:-1], -1)


class WordMatches(nn.Module):
    """Which words of a sentence are words of the question, as a vector to add to the sentence.

    The sum of a learned vector for every pair of places (in the sentence, in the question) that hold the same word,
    whatever the word: what is learned of one name holds for all. Exact match is an input of the reader of Chen et al.
    2017 (arXiv 1704.00051, section 3.2), there one number for each word.

    Args:
        max_words: the longest sentence and question, in words.
        size: features, E.
    """

    def __init__(self, max_words: int, size: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(0.3 * torch.randn(max_words, max_words, size))

    def forward(self, statements: Tensor, questions: Tensor) -> Tensor:
        """Words [M, T, W] of sentences and [M, V] of questions, 0 = padding, to [M, T, E]."""
        same = (statements.unsqueeze(3) == questions[:, None, None]) & (questions > 0)[:, None, None]
        vectors = self.vectors[: statements.shape[2], : questions.shape[1]].flatten(0, 1)
        return same.flatten(2).to(vectors.dtype) @ vectors


class LinkedWords(nn.Module):
    """How far the words of a sentence are from those of the question, by steps from sentence to sentence, as a vector.

    A word is one step away if it stands in a sentence with a word of the question, two if with a word that is one step
    away, and so on; every word counts with its fewest steps alone. To what degree, h_k(w) in [0, 1]:

    h_0 says which words the question has; s_k(t) = sum over the words of sentence t of g(w) h_k(w);
    h_{k+1}(w) = (1 - exp(-2 sum over the sentences that have w of s_k(t))) (1 - h_0(w)) ... (1 - h_k(w)).

    How well a word links sentences, g(w), is learned of each; times the share of the story's sentences that do not have
    it, since words that stand everywhere link everything. A sentence gets the sum over its words of h_k(w) times
    a learned vector of k and the word's place, for k from 1.

    Args:
        words: how many words there are, padding not counted.
        steps: the most steps that are told apart, K.
        max_words: the longest sentence, in words.
        size: features, E.
    """

    def __init__(self, words: int, steps: int, max_words: int, size: int) -> None:
        super().__init__()
        self.steps = steps
        self.links = nn.Parameter(torch.zeros(words))
        self.vectors = nn.Parameter(0.3 * torch.randn(steps, max_words, size))

    def forward(self, statements: Tensor, questions: Tensor) -> Tensor:
        """Words [M, T, W] of sentences and [M, V] of questions, 0 = padding, to [M, T, E]."""
        degrees = self.degrees(statements, questions)
        words = statements.flatten(1).unsqueeze(1).expand(-1, self.steps, -1)
        hits = degrees.gather(2, words).unflatten(2, statements.shape[1:]).transpose(1, 2)
        return hits.flatten(2) @ self.vectors[:, : statements.shape[2]].flatten(0, 1)

    def degrees(self, statements: Tensor, questions: Tensor) -> Tensor:
        """h_k(w) for k from 1 to K and every word, [M, K, 1 + words]; padding, word 0, is never linked."""
        count = 1 + len(self.links)
        there = self.vectors.new_zeros(*statements.shape[:2], count).scatter_(2, statements, 1.0)  # sentence has word
        there[:, :, 0] = 0.0
        sentences = (statements > 0).any(2).sum(1, keepdim=True).clamp(min=1)
        links = F.pad(self.links.sigmoid(), (1, 0)) * (1 - there.sum(1) / sentences)
        degree = self.vectors.new_zeros(len(questions), count).scatter_(1, questions, 1.0)
        nearest, found = 1 - degree, []
        for _ in range(self.steps):
            linked = torch.einsum("mtw,mw->mt", there, links * degree)
            degree = (1 - torch.exp(-2 * torch.einsum("mtw,mt->mw", there, linked))) * nearest
            nearest = nearest * (1 - degree)
            found.append(degree)
        return torch.stack(found, 1)


class RecalledWords(nn.Module):
    """Where the words that earlier readings brought up stand in a sentence, as a vector to add to the sentence.

    What the question finds in the state, u, scores every word w by its embedding, K times over: s_k(w) = (u W_k) e_w.
    A sentence gets the sum over its words of s_k(w) times a learned vector of k and the word's place.

    Args:
        found: features of u, H.
        looks: how many words are looked for, K.
        max_words: the longest sentence, in words.
        size: features, E.
    """

    def __init__(self, found: int, looks: int, max_words: int, size: int) -> None:
        super().__init__()
        self.looks = looks
        self.queries = nn.Linear(found, looks * size)
        self.vectors = nn.Parameter(0.3 * torch.randn(looks, max_words, size))

    def scores(self, found: Tensor, embedding: Tensor) -> Tensor:
        """u [M, H] and the embeddings of all words [words, E] to the scores [M, K, words]."""
        return self.queries(found).unflatten(-1, (self.looks, -1)) @ embedding.T

    def forward(self, found: Tensor, embedding: Tensor, statements: Tensor) -> Tensor:
        """u [M, H], embeddings [words, E] and words [M, T, W] of sentences (0 = padding) to [M, T, E]."""
        hits = self._hits(found, embedding, statements)
        return hits.flatten(2) @ self.vectors[:, : statements.shape[2]].flatten(0, 1)

    def target_losses(self, found: Tensor, embedding: Tensor, words: Tensor) -> Tensor:
        """How far the first look is from scoring these words highest, one number for every question [M].

        The cross entropy of the scores of all words with the given ones, each alike; 0 where none is given.

        Args:
            found: u [M, H].
            embedding: of all words [words, E].
            words: [M, W] the words to look for, 0 = none.
        """
        scores = F.pad(self.scores(found, embedding)[:, 0].log_softmax(1), (1, 0))
        given = words > 0
        return -(scores.gather(1, words) * given).sum(1) / given.sum(1).clamp(min=1)

    def strengths(self, found: Tensor, embedding: Tensor, statements: Tensor) -> Tensor:
        """Lengths [M, T, W] of what each word adds to its sentence. Arguments as for a call."""
        hits = self._hits(found, embedding, statements)
        return torch.einsum("mtkw,kwe->mtwe", hits, self.vectors[:, : statements.shape[2]]).norm(dim=3)

    def _hits(self, found: Tensor, embedding: Tensor, statements: Tensor) -> Tensor:
        """The scores [M, T, K, W] of the words of the sentences."""
        scores = F.pad(self.scores(found, embedding), (1, 0))  # padding scores 0
        words = statements.flatten(1).unsqueeze(1).expand(-1, self.looks, -1)
        return scores.gather(2, words).unflatten(2, statements.shape[1:]).transpose(1, 2)
