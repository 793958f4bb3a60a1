"""Byte pairs (Sennrich et al. 2016, arXiv 1508.07909), learned and applied by the library `tokenizers`."""

from __future__ import annotations

import codecs
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from relational_rnn._check import InputError, describe, need_extra
from relational_rnn._reading.guard import damaged
from relational_rnn.tasks.language.vocabulary import FORMAT, Carry, Vocabulary

MAX_LINE = 2**16
"""Characters after which a line is cut, at white space if it has any: memory must not grow with a line."""
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
"""Bytes whose Latin-1 letter is visible: they stand for themselves in the library's alphabet of bytes."""
BYTES = {
    **{chr(byte): byte for byte in PRINTABLE},
    **{chr(256 + i): byte for i, byte in enumerate(sorted(set(range(256)) - set(PRINTABLE)))},
}
"""Letter of that alphabet -> byte."""


def _library() -> Any:
    return need_extra("tokenizers", "language", "a vocabulary of byte pairs")


class BytePairs(Vocabulary):
    """Pieces of words, learned from a text's bytes, so that every text can be encoded and nothing is lost.

    Every line is encoded by itself: no token crosses a line end, which is a token of its own.
    """

    kind = "bpe"

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.size = tokenizer.get_vocab_size()
        self.unknown = None
        self.line_end = tokenizer.encode("\n").ids[0]

    @classmethod
    def train(cls, text: Iterable[str], size: int, *, where: str) -> BytePairs:
        """Learn pairs until there are `size` tokens."""
        library = _library()
        split, byte_level = library.pre_tokenizers.Split, library.pre_tokenizers.ByteLevel
        tokenizer = library.Tokenizer(library.models.BPE())
        # A line end stays by itself; white space goes with the word after it.
        tokenizer.pre_tokenizer = library.pre_tokenizers.Sequence(
            [split(library.Regex("\n"), "isolated"), byte_level(add_prefix_space=False)]
        )
        lines = LineCarry().cut(text)
        first = next(lines, None)
        if first is None:
            raise InputError(describe(where, "the text holds no byte"))
        trainer = library.trainers.BpeTrainer(
            vocab_size=size, initial_alphabet=byte_level.alphabet(), show_progress=False
        )
        tokenizer.train_from_iterator(itertools.chain([first], lines), trainer)
        found = cls(tokenizer)
        if found.size < size:
            problem = "the text is too short to learn so many byte pairs from"
            raise InputError(describe(where, problem, got=f"{found.size:,} tokens", expected=f"{size:,} tokens"))
        return found

    @classmethod
    def of_json(cls, content: dict[str, Any], where: str) -> BytePairs:
        """The vocabulary with this JSON content."""
        with damaged(where, "the vocabulary's byte pairs cannot be read"):
            return cls(_library().Tokenizer.from_str(json.dumps(content["tokenizer"])))

    def to_json(self) -> str:
        content = {"format": FORMAT, "kind": self.kind, "tokenizer": json.loads(self._tokenizer.to_str())}
        return json.dumps(content, ensure_ascii=False)

    def carry(self) -> Carry:
        return LineCarry()

    def tokens_of(self, parts: list[str], where: str, line: int) -> np.ndarray:
        lines = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(parts, add_special_tokens=False)]
        return np.fromiter(itertools.chain.from_iterable(lines), np.int64, sum(map(len, lines)))

    def pieces(self, tokens: Iterable[int]) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for token in tokens:
            yield decoder.decode(self._bytes(self._check(token)))
        yield decoder.decode(b"", final=True)

    def _symbol(self, token: int) -> str:
        return self._bytes(token).decode("utf-8", "replace")

    def _bytes(self, token: int) -> bytes:
        return bytes(BYTES[letter] for letter in self._tokenizer.id_to_token(token))


class LineCarry(Carry):
    """Cuts into lines, and a very long line at white space, if it has any; the pieces decide nothing.

    >>> carry = LineCarry(limit=6)
    >>> carry.feed("to be\\nor n"), carry.feed("ot\\nquestions"), carry.finish()
    (['to be\\n'], ['or', ' not\\n', 'questi'], ['ons'])
    """

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._open = ""

    def feed(self, text: str) -> list[str]:
        *whole, self._open = (self._open + text).split("\n")
        done = [part for line in whole for part in self._cut(line + "\n")]
        *parts, self._open = self._cut(self._open)
        return done + parts

    def finish(self) -> list[str]:
        done, self._open = self._open, ""
        return [done] if done else []

    def _cut(self, line: str) -> list[str]:
        parts = []
        while len(line) > self._limit:
            space = line.rfind(" ", 1, self._limit)
            at = space if space > 0 else self._limit
            parts.append(line[:at])
            line = line[at:]
        return [*parts, line]
