"""Vocabularies of words, characters or byte pairs, with one interface; plain JSON on disk."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from relational_rnn._check import InputError, check_choice, check_positive, describe
from relational_rnn._reading.guard import shown
from relational_rnn._reading.json_text import parse_json

VocabularyKind = Literal["word", "character", "bpe"]
UNKNOWN = {"word": "<unk>", "character": "\ufffd"}
"""The symbol of what is not in the vocabulary, if the vocabulary has one; U+FFFD is Unicode's own."""
END = "<eos>"
"""The token of a line end in a vocabulary of words."""
FORMAT = 1
"""Of the JSON form."""
MAX_NAMED = 5
"""At most so many unknown symbols are named in a message."""


class Carry:
    """Cuts a text that comes in pieces into parts that can be encoded one by one; here each piece is a part."""

    def feed(self, text: str) -> list[str]:
        """The parts that are complete now."""
        return [text]

    def finish(self) -> list[str]:
        """What was kept back."""
        return []

    def cut(self, pieces: Iterable[str]) -> Iterator[str]:
        """All parts of a text."""
        for piece in pieces:
            yield from self.feed(piece)
        yield from self.finish()


class WordCarry(Carry):
    """Cuts at white space only.

    >>> carry = WordCarry()
    >>> carry.feed("to be o"), carry.feed("r not"), carry.finish()
    (['to be '], ['or '], ['not'])
    """

    def __init__(self) -> None:
        self._open: list[str] = []

    def feed(self, text: str) -> list[str]:
        kept = len(text)
        while kept and not text[kept - 1].isspace():
            kept -= 1
        self._open.append(text[:kept])
        done = self.finish() if kept else []
        self._open.append(text[kept:])
        return done

    def finish(self) -> list[str]:
        done, self._open = "".join(self._open), []
        return [done] if done else []


class Encoder:
    """Turns a text that comes in pieces into the tokens of the whole text; only half a word or line is kept back."""

    def __init__(self, vocabulary: Vocabulary, where: str, line: int) -> None:
        self._vocabulary, self._where, self._line = vocabulary, where, line
        self._carry = vocabulary.carry()

    def feed(self, text: str) -> np.ndarray:
        """int64 [n] the tokens that are settled now."""
        return self._encode(self._carry.feed(text))

    def finish(self) -> np.ndarray:
        """int64 [n] the tokens of what was kept back."""
        return self._encode(self._carry.finish())

    def _encode(self, parts: list[str]) -> np.ndarray:
        tokens = self._vocabulary.tokens_of(parts, self._where, self._line)
        self._line += sum(part.count("\n") for part in parts)
        return tokens


class Vocabulary(ABC):
    """Text as numbers 0 to `size` - 1 and back. Made by `Vocabulary.build` or `Vocabulary.from_json`.

    White space separates words; with `line_ends` every line end is the token `<eos>`. Words and characters are numbered
    by frequency, the most frequent first, as an adaptive softmax needs it; byte pairs in the order of their merging.

    >>> words = Vocabulary.build("word", ["to be or\\nnot to be\\n"], line_ends=True)
    >>> words.size, words.encode("be to\\n").tolist(), words.decode([2, 1, 0])
    (5, [1, 2, 0], 'to be\\n')
    >>> Vocabulary.from_json(words.to_json(), where="here") == words
    True
    """

    kind: ClassVar[VocabularyKind]
    size: int
    """How many tokens there are."""
    unknown: int | None
    """The token of what is not in the vocabulary; None if such text is refused."""
    line_end: int | None
    """The token of a line end; None if it has none of its own."""

    @staticmethod
    def build(
        kind: VocabularyKind,
        text: Iterable[str],
        *,
        size: int | None = None,
        line_ends: bool = True,
        where: str = "Vocabulary.build",
    ) -> Vocabulary:
        """The vocabulary of a text.

        Args:
            kind: "word", "character" or "bpe" (byte pairs; needs the extra `language`).
            text: the text in pieces of any length, read once and never held as a whole.
            size: how many tokens. None takes all words or characters; if there are more than `size`, the rarest are
                read as unknown. Byte pairs are learned until there are `size`.
            line_ends: line ends are tokens (words only: characters and byte pairs always keep them).
            where: how error messages begin.

        Raises:
            InputError: a text without a token, an impossible size, or `line_ends=False` for characters or bytes.
        """
        check_choice(where, "kind", kind, get_args(VocabularyKind))
        check_settings(kind, size, line_ends, where)
        if kind == "bpe":
            from relational_rnn.tasks.language.byte_pairs import BytePairs

            assert size is not None
            return BytePairs.train(text, size, where=where)
        counts: Counter[str] = Counter()
        if kind == "character":
            for piece in text:
                codes, numbers = np.unique(_codes(piece), return_counts=True)
                counts.update({chr(code): int(number) for code, number in zip(codes, numbers, strict=True)})
        else:
            for part in WordCarry().cut(text):
                counts.update(split_words(part, line_ends))
        if not counts:
            raise InputError(describe(where, f"the text holds no {kind}"))
        if kind == "word" and line_ends:
            counts[END] += 0  # it is in the vocabulary, even if this text has no line end
        if size is not None and len(counts) > size:
            keep = {END, UNKNOWN[kind]} & counts.keys() | {UNKNOWN[kind]}
            rest = [symbol for symbol in _by_frequency(counts) if symbol not in keep]
            counts[UNKNOWN[kind]] += sum(counts.pop(symbol) for symbol in rest[size - len(keep) :])
        symbols = _by_frequency(counts)
        return Characters(symbols) if kind == "character" else Words(symbols, line_ends=line_ends)

    @staticmethod
    def from_json(text: str, where: str) -> Vocabulary:
        """The vocabulary that `to_json` wrote; `where`, e.g. the name of the file, begins error messages.

        Raises:
            InputError: this is no vocabulary.
        """
        content: Any = parse_json(text, where)
        if not isinstance(content, dict):
            raise InputError(describe(where, "this is no vocabulary", got=type(content).__name__))
        kind, version = content.get("kind"), content.get("format")
        if kind not in get_args(VocabularyKind) or version != FORMAT:
            expected = f"format {FORMAT} and one of the kinds {', '.join(get_args(VocabularyKind))}"
            got = f"format {shown(version)}, kind {shown(kind)}"
            raise InputError(describe(where, "this is no vocabulary", got=got, expected=expected))
        if kind == "bpe":
            from relational_rnn.tasks.language.byte_pairs import BytePairs

            return BytePairs.of_json(content, where)
        symbols = content.get("symbols")
        if not isinstance(symbols, list) or not symbols or not all(isinstance(s, str) and s for s in symbols):
            raise InputError(describe(where, "the vocabulary's symbols must be a list of texts that are not empty"))
        if len(set(symbols)) < len(symbols):
            double = next(symbol for symbol, count in Counter(symbols).items() if count > 1)
            raise InputError(describe(where, "the vocabulary has a symbol twice", got=repr(double)))
        if kind == "word":
            return Words(symbols, line_ends=content.get("line_ends") is True)
        if any(len(symbol) != 1 for symbol in symbols):
            raise InputError(describe(where, "a vocabulary of characters has a symbol of more than one character"))
        return Characters(symbols)

    @abstractmethod
    def to_json(self) -> str:
        """Plain JSON, which `from_json` reads."""

    @abstractmethod
    def carry(self) -> Carry:
        """What cuts a text into parts that can be encoded one by one."""

    @abstractmethod
    def tokens_of(self, parts: list[str], where: str, line: int) -> np.ndarray:
        """int64 [n] the tokens of parts that `carry` has cut; messages name the text `where` and count from `line`."""

    def encoder(self, where: str = "text", line: int = 1) -> Encoder:
        """Encodes a long text piece by piece; `where` names it in messages, `line` is the number of its first line."""
        return Encoder(self, where, line)

    def encode(self, text: str, where: str = "text") -> np.ndarray:
        """int64 [n] the tokens of a text.

        Raises:
            InputError: something is not in the vocabulary, and it has no token for that; its line is named.
        """
        encoder = self.encoder(where)
        return np.concatenate([encoder.feed(text), encoder.finish()])

    def pieces(self, tokens: Iterable[int]) -> Iterator[str]:
        """The text of each token as it comes; it may be empty, as half a character waits for its other half."""
        return map(self.symbol, tokens)

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        """The text of tokens. Words stand one space apart, as white space is not part of them.

        Raises:
            InputError: a number that is no token.
        """
        return "".join(self.pieces(tokens))

    def symbol(self, token: int) -> str:
        """What a token stands for, as tables show it."""
        return self._symbol(self._check(token))

    @abstractmethod
    def _symbol(self, token: int) -> str: ...

    def _check(self, token: int) -> int:
        if not 0 <= token < self.size:
            expected = f"0 to {self.size - 1}"
            raise InputError(describe("Vocabulary", "there is no such token", got=token, expected=expected))
        return int(token)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.to_json())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.size:,} tokens)"


class _Symbols(Vocabulary):
    """A list of symbols, numbered in its order."""

    def __init__(self, symbols: Sequence[str], line_end: str, **settings: bool) -> None:
        self.symbols = tuple(symbols)
        self.size = len(self.symbols)
        self.numbers = {symbol: number for number, symbol in enumerate(self.symbols)}
        self.unknown = self.numbers.get(UNKNOWN[self.kind])
        self.line_end = self.numbers.get(line_end)
        self._settings = settings

    def to_json(self) -> str:
        content = {"format": FORMAT, "kind": self.kind, **self._settings, "symbols": self.symbols}
        return json.dumps(content, ensure_ascii=False)

    def _symbol(self, token: int) -> str:
        return self.symbols[token]

    def _lacks(self, missing: Iterable[str], text: str, where: str, line: int) -> InputError:
        """The mistake of a text with symbols that the vocabulary does not have."""
        names = list(dict.fromkeys(missing))
        lines = [line + text.count("\n", 0, text.index(name)) for name in names[:MAX_NAMED]]
        got = ", ".join(f"{name!r} (line {at:,})" for name, at in zip(names, lines, strict=False))
        got += f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        hint = f"a vocabulary that is built with a smaller vocabulary_size reads rare {self.kind}s as unknown."
        return InputError(describe(where, f"the vocabulary lacks {self.kind}s of this text", got=got, hint=hint))


class Characters(_Symbols):
    """Every character is a token, line ends too; nothing is changed on the way."""

    kind = "character"

    def __init__(self, symbols: Sequence[str]) -> None:
        super().__init__(symbols, "\n")
        codes = _codes("".join(self.symbols))
        # One entry beyond the last code stands for all codes after it.
        self._table = np.full(int(codes.max()) + 2, -1 if self.unknown is None else self.unknown, np.int64)
        self._table[codes] = np.arange(len(codes))

    def carry(self) -> Carry:
        return Carry()

    def tokens_of(self, parts: list[str], where: str, line: int) -> np.ndarray:
        text = "".join(parts)
        tokens = self._table[np.minimum(_codes(text), len(self._table) - 1)]
        if (tokens < 0).any():
            raise self._lacks((text[i] for i in np.flatnonzero(tokens < 0).tolist()), text, where, line)
        return tokens


class Words(_Symbols):
    """Every word is a token, and with `line_ends` every line end."""

    kind = "word"

    def __init__(self, symbols: Sequence[str], *, line_ends: bool) -> None:
        super().__init__(symbols, END, line_ends=line_ends)
        self.line_ends = line_ends
        self.line_end = self.line_end if line_ends else None

    def carry(self) -> Carry:
        return WordCarry()

    def tokens_of(self, parts: list[str], where: str, line: int) -> np.ndarray:
        text, numbers = "".join(parts), self.numbers
        words = split_words(text, self.line_ends)
        if self.unknown is not None:
            return np.fromiter((numbers.get(word, self.unknown) for word in words), np.int64, len(words))
        try:
            return np.fromiter(map(numbers.__getitem__, words), np.int64, len(words))
        except KeyError:
            raise self._lacks((word for word in words if word not in numbers), text, where, line) from None

    def pieces(self, tokens: Iterable[int]) -> Iterator[str]:
        between = ""
        for token in tokens:
            end = self._check(token) == self.line_end
            yield "\n" if end else between + self.symbols[token]
            between = "" if end else " "


def split_words(text: str, line_ends: bool) -> list[str]:
    """The words of a text, and `<eos>` at every line end if these are tokens.

    >>> split_words("to be\\n\\nor", True)
    ['to', 'be', '<eos>', '<eos>', 'or']
    """
    return (text.replace("\n", f" {END} ") if line_ends else text).split()


def check_settings(kind: VocabularyKind, size: int | None, line_ends: bool, where: str) -> None:
    """Refuse settings that no vocabulary of this kind can obey."""
    if size is not None:
        check_positive(where, vocabulary_size=size)
    if kind != "word" and not line_ends:
        raise InputError(describe(where, "only a vocabulary of words can leave line ends out", got=kind))
    if kind == "bpe" and size is None:
        hint = "8192 is a usual size for a small corpus."
        raise InputError(describe(where, "byte pairs need a vocabulary_size", got=None, hint=hint))
    least = {"word": 2 + line_ends, "character": 2, "bpe": 256}[kind]
    if size is not None and size < least:
        why = "one for each byte" if kind == "bpe" else "the unknown has a token of its own"
        raise InputError(describe(where, "vocabulary_size is too small", got=size, expected=f">= {least}: {why}"))


def _codes(text: str) -> np.ndarray:
    """uint32 [n] the code points."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _by_frequency(counts: Counter[str]) -> list[str]:
    """Most frequent first, equals by their code points, so that the order of the text does not matter."""
    return sorted(counts, key=lambda symbol: (-counts[symbol], symbol))
