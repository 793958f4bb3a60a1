"""Byte pairs (Sennrich et al. 2016, arXiv 1508.07909), learned and applied by the library `tokenizers`."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from relational_rnn._check import InputError, describe, need_extra
from relational_rnn._reading.guard import damaged
from relational_rnn.tasks.language.vocabulary import FORMAT, Encoder, Vocabulary

MAX_LINE = 2**16
"""Characters after which a line is cut, at white space where it can be: memory must not grow with a line."""
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
    """Pieces of words, learned from a text's bytes, so that there is no text it cannot encode, and nothing is lost.

    Every line is encoded by itself: no token reaches over a line end, which is a token of its own.
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
        tokenizer = library.Tokenizer(library.models.BPE())
        # A line end stays by itself; white space goes with the word after it.
        tokenizer.pre_tokenizer = library.pre_tokenizers.Sequence(
            [
                library.pre_tokenizers.Split(library.Regex("\n"), "isolated"),
                library.pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        trainer = library.trainers.BpeTrainer(
            vocab_size=size, initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        )
        empty = True

        def lines() -> Iterator[str]:
            nonlocal empty
            cut = LineCarry()
            for piece in text:
                empty = empty and not piece
                yield from cut.feed(piece)
            yield from cut.finish()

        tokenizer.train_from_iterator(lines(), trainer)
        if empty:
            raise InputError(describe(where, "the text holds no byte"))
        found = cls(tokenizer)
        if found.size < size:
            problem = "the text is too short to learn so many byte pairs from"
            raise InputError(describe(where, problem, got=f"{found.size:,} tokens", expected=f"{size:,} tokens"))
        return found

    @classmethod
    def of_json(cls, content: dict[str, Any], where: str) -> BytePairs:
        """Of the content of the JSON form."""
        with damaged(where, "the vocabulary's byte pairs cannot be read"):
            return cls(_library().Tokenizer.from_str(json.dumps(content["tokenizer"])))

    def to_json(self) -> str:
        content = {"format": FORMAT, "kind": self.kind, "tokenizer": json.loads(self._tokenizer.to_str())}
        return json.dumps(content, ensure_ascii=False)

    def encoder(self, where: str = "text", line: int = 1) -> Encoder:
        return _BytePairEncoder(self._tokenizer)

    def pieces(self, tokens: Iterable[int]) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for token in tokens:
            yield decoder.decode(self._bytes(self._check(token)))
        yield decoder.decode(b"", final=True)

    def _symbol(self, token: int) -> str:
        return self._bytes(token).decode("utf-8", "replace")

    def _bytes(self, token: int) -> bytes:
        return bytes(BYTES[letter] for letter in self._tokenizer.id_to_token(token))


class _BytePairEncoder(Encoder):
    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.carry = LineCarry()

    def feed(self, text: str) -> np.ndarray:
        return self._encode(self.carry.feed(text))

    def finish(self) -> np.ndarray:
        return self._encode(self.carry.finish())

    def _encode(self, lines: list[str]) -> np.ndarray:
        parts = [encoding.ids for encoding in self.tokenizer.encode_batch_fast(lines, add_special_tokens=False)]
        return np.fromiter((token for part in parts for token in part), np.int64, sum(map(len, parts)))


class LineCarry:
    """Cuts a text that comes in pieces into lines, and a very long line at white space, where it has any.

    The cuts depend on the text alone, not on its pieces.

    >>> carry = LineCarry(limit=6)
    >>> carry.feed("to be\\nor n"), carry.feed("ot\\nquestions"), carry.finish()
    (['to be\\n'], ['or', ' not\\n', 'questi'], ['ons'])
    """

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._open = ""

    def feed(self, text: str) -> list[str]:
        """The lines, and parts of a long one, that are complete now."""
        *whole, self._open = (self._open + text).split("\n")
        done = [part for line in whole for part in self._cut(line + "\n")]
        *parts, self._open = self._cut(self._open) or [""]
        return done + parts

    def finish(self) -> list[str]:
        """The last line."""
        done, self._open = ([self._open] if self._open else []), ""
        return done

    def _cut(self, line: str) -> list[str]:
        parts = []
        while len(line) > self._limit:
            space = line.rfind(" ", 1, self._limit)
            at = space if space > 0 else self._limit
            parts.append(line[:at])
            line = line[at:]
        return [*parts, line] if line else parts
