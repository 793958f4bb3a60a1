"""Parameters around the operations: the relational memory, its rivals, and the contract they share."""

from relational_rnn.nn.attention import AttentionLSTM
from relational_rnn.nn.core import Core, State
from relational_rnn.nn.cores import CORE_NAMES, build_core
from relational_rnn.nn.dnc import DNC
from relational_rnn.nn.fast_weight_memory import FastWeightMemory
from relational_rnn.nn.fast_weight_trace import FastWeightTrace
from relational_rnn.nn.gated_delta_net import GatedDeltaNet
from relational_rnn.nn.gru import GRU
from relational_rnn.nn.lstm import LSTM
from relational_rnn.nn.ntm import NTM
from relational_rnn.nn.readers import Look, MatrixReader, RowReader, StateReader
from relational_rnn.nn.relation_network import RelationNetwork
from relational_rnn.nn.relational_memory import RelationalMemory
from relational_rnn.nn.relational_memory_cell import RelationalMemoryCell
from relational_rnn.nn.rnn import RNN
from relational_rnn.nn.sizes import CoreName, FastWeightSizes, MemorySizes, RivalSizes
from relational_rnn.nn.transformer import Transformer
from relational_rnn.nn.universal_transformer import UniversalTransformer

__all__ = [
    "CORE_NAMES",
    "DNC",
    "GRU",
    "LSTM",
    "NTM",
    "RNN",
    "AttentionLSTM",
    "Core",
    "CoreName",
    "FastWeightMemory",
    "FastWeightSizes",
    "FastWeightTrace",
    "GatedDeltaNet",
    "Look",
    "MatrixReader",
    "MemorySizes",
    "RelationNetwork",
    "RelationalMemory",
    "RelationalMemoryCell",
    "RivalSizes",
    "RowReader",
    "State",
    "StateReader",
    "Transformer",
    "UniversalTransformer",
    "build_core",
]
