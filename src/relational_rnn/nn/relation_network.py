"""The Relation Network (Santoro et al., 2017): an answer from all pairs of a set of objects."""

from __future__ import annotations

from torch import Tensor, nn

from relational_rnn._check import check_counts, check_positive, check_room, check_shape
from relational_rnn.nn._inputs import check_booleans, check_kind
from relational_rnn.nn._pretrained import Pretrained
from relational_rnn.nn.initial_weights import draw_glorot


class RelationNetwork(Pretrained):
    r"""A Relation Network (Santoro et al., 2017, arXiv:1706.01427, equation 1, with a question):

    $$ a = f_\phi\Big(\textstyle\sum_{i,j} g_\theta(o_i, o_j, q)\Big) $$

    g is an MLP with a ReLU after every layer; the last layer of f is linear. The sum runs over all ordered pairs, an
    object with itself included. It is no recurrent core: it knows no order, so give objects their positions as
    features where these matter. Memory and time grow with R * R * pair_size. `Core.rows` can give objects and mask.

    The defaults are the sizes of the paper's bAbI model, but for the second hidden layer of f (512 there).

    Args:
        pair_size: width of g.
        pair_layers: layers of g.
        answer_hidden_size: width of the hidden layers of f.
        answer_hidden_layers: hidden layers of f.

    Shape:
        With D = object_size, Q = question_size and A = answer_size: objects [B, R, D], question [B, Q], mask [B, R]
        booleans, true where an object exists (None: all do); to logits [B, A]. Without objects the sum is 0.

    Raises:
        InputError: a size, shape or dtype that does not fit.

    Example:
        >>> import torch
        >>> network = RelationNetwork(object_size=5, question_size=4, answer_size=3, pair_size=16)
        >>> network(torch.zeros(7, 6, 5), torch.zeros(7, 4)).shape
        torch.Size([7, 3])
    """

    def __init__(
        self,
        object_size: int,
        question_size: int,
        answer_size: int,
        *,
        pair_size: int = 256,
        pair_layers: int = 4,
        answer_hidden_size: int = 256,
        answer_hidden_layers: int = 2,
    ) -> None:
        super().__init__()
        sizes = {"object_size": object_size, "question_size": question_size, "answer_size": answer_size}
        layers = {"pair_layers": pair_layers, "answer_hidden_layers": answer_hidden_layers}
        check_positive("RelationNetwork", **sizes, pair_size=pair_size, answer_hidden_size=answer_hidden_size)
        check_counts("RelationNetwork", **layers)
        pairs_weights = pair_size * (2 * object_size + question_size + pair_layers * pair_size)
        of_an_answer = answer_hidden_size * (pair_size + answer_hidden_layers * answer_hidden_size + answer_size)
        check_room("RelationNetwork", pairs_weights, of_an_answer)
        self.object_size = object_size
        self.question_size = question_size
        self.answer_size = answer_size
        # The first layer of g, by columns: computed for each object and question, then added up for the pairs.
        self.first = nn.Linear(object_size, pair_size)
        self.second = nn.Linear(object_size, pair_size, bias=False)
        self.question = nn.Linear(question_size, pair_size, bias=False)
        pairs: list[nn.Module] = [nn.ReLU()]
        for _ in range(pair_layers - 1):
            pairs += [nn.Linear(pair_size, pair_size), nn.ReLU()]
        self.pairs = nn.Sequential(*pairs)
        width, answer = pair_size, []
        for _ in range(answer_hidden_layers):
            answer += [nn.Linear(width, answer_hidden_size), nn.ReLU()]
            width = answer_hidden_size
        self.answer = nn.Sequential(*answer, nn.Linear(width, answer_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        draw_glorot(self)

    def forward(self, objects: Tensor, question: Tensor, mask: Tensor | None = None) -> Tensor:
        where = "RelationNetwork"
        check_shape(where, "objects", objects, {"B": None, "R": None, "D": self.object_size})
        check_shape(where, "question", question, {"B": objects.shape[0], "Q": self.question_size})
        check_kind(self, "objects", objects)
        check_kind(self, "question", question)
        if mask is not None:
            check_shape(where, "mask", mask, {"B": objects.shape[0], "R": objects.shape[1]})
            check_booleans(where, "mask", mask, objects.device)
            objects = objects.masked_fill(~mask.unsqueeze(2), 0)
        first, second = self.first(objects).unsqueeze(2), self.second(objects).unsqueeze(1)
        pairs = self.pairs(first + second + self.question(question)[:, None, None])  # [B, R, R, pair_size]
        if mask is not None:
            both = mask.unsqueeze(2) & mask.unsqueeze(1)
            pairs = pairs.masked_fill(~both.unsqueeze(3), 0)
        return self.answer(pairs.sum((1, 2)))
