"""A text in pieces through a small language model: what each piece shows is what the whole text shows there."""

import math

import numpy as np
import pytest
import torch

from relational_rnn import InputError
from relational_rnn.inspection import attention_statistics
from relational_rnn.nn.cores import MemorySizes
from relational_rnn.tasks.language.corpus import Tokens
from relational_rnn.tasks.language.judging import read_text
from relational_rnn.tasks.language.language_page import Piece, pieces_of, text_statistics, trace_text
from relational_rnn.tasks.language.model import LanguageModel, LanguageModelConfig
from relational_rnn.tasks.language.vocabulary import Vocabulary

WORDS = ["to", "be", "or", "not", "to", "be", "that", "is", "the", "question", "whether", "it", "is", "nobler"]
VOCABULARY = Vocabulary.build("word", [" ".join(WORDS)])
NUMBERS = VOCABULARY.encode(" ".join(WORDS))
N, M = 3, 8


def model_of(core: str = "rmc", **choices) -> LanguageModel:
    torch.manual_seed(8)
    config = LanguageModelConfig(embedding_size=10, output_dropout=0.5, **choices)
    sizes = MemorySizes(mem_slots=N, head_size=M // 2, num_heads=2)
    model = LanguageModel.build(VOCABULARY.size, core, sizes, config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model


def text(*starts: int) -> Tokens:
    return Tokens(NUMBERS, np.array([0, *starts]), words=len(NUMBERS), characters=60)


@pytest.mark.parametrize("choices", [{}, {"layers": 2, "residual": True}, {"layers": 2, "softmax": "free"}], ids=str)
def test_a_piece_with_its_context_is_that_part_of_the_whole(choices):
    model = model_of(**choices)
    whole = trace_text(model, VOCABULARY, NUMBERS)
    assert whole.tokens == tuple(WORDS)
    assert whole.surprise[0] is None
    bits = read_text(model, text()).losses / math.log(2)
    assert whole.surprise[1:] == pytest.approx(bits.tolist(), abs=1e-9)
    piece = trace_text(model, VOCABULARY, NUMBERS[5:9], context=NUMBERS[:5])
    assert piece.surprise == pytest.approx(bits[4:8].tolist(), abs=1e-9)
    assert torch.allclose(piece.trace.memory, whole.trace.memory[5:9])
    assert torch.allclose(piece.trace.attention, whole.trace.attention[5:9])
    assert torch.allclose(piece.before, whole.trace.memory[4])
    assert torch.equal(whole.before, model.core(-1).initial_state(1)[0])
    one = trace_text(model, VOCABULARY, NUMBERS[:1])
    assert (one.surprise, one.trace.memory.shape) == ((None,), (1, N, M))


def test_a_layer_can_be_chosen():
    model = model_of(layers=2)
    low, top = (trace_text(model, VOCABULARY, NUMBERS, layer=layer).trace.memory for layer in (0, 1))
    assert torch.equal(trace_text(model, VOCABULARY, NUMBERS).trace.memory, top)
    assert not torch.allclose(low, top)
    _, state = model(torch.from_numpy(NUMBERS)[None])
    assert torch.allclose(low[-1], state[0][0])


def test_pieces_end_where_documents_begin():
    found = pieces_of(text(6), 4)
    assert found == [Piece(0, 4, 0), Piece(4, 6, 0), Piece(6, 10, 6), Piece(10, 14, 6)]


def test_statistics_carry_the_memory_along_a_document():
    model = model_of()
    pieces = pieces_of(text(6), 4)
    found = text_statistics(model, text(6), pieces)
    for i, piece in enumerate(pieces):
        context = NUMBERS[piece.document : piece.start]
        alone = trace_text(model, VOCABULARY, NUMBERS[piece.start : piece.end], context=context).trace
        expected = attention_statistics([(alone.map(lambda tensor: tensor[None]), None)])
        for name in ("entropy", "to_input", "forget_gate", "likeness"):
            assert torch.allclose(getattr(found, name)[i], getattr(expected, name)[0]), (i, name)


def test_what_cannot_be_read_is_refused():
    with pytest.raises(InputError, match="the text holds no token"):
        trace_text(model_of(), VOCABULARY, [])
    with pytest.raises(InputError, match="layer is not a known choice"):
        trace_text(model_of(), VOCABULARY, NUMBERS, layer=1)
    with pytest.raises(InputError, match="only a relational memory has slots"):
        trace_text(model_of("lstm"), VOCABULARY, NUMBERS)
    with pytest.raises(InputError, match="there is no such token"):
        trace_text(model_of(), VOCABULARY, [VOCABULARY.size])
