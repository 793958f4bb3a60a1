"""The Relation Network (Santoro et al., 2017): an answer from all pairs of a set of objects."""

from __future__ import annotations

from torch import Tensor, nn

from relational_rnn._check import check_counts, check_positive, check_room, check_shape
from relational_rnn.nn._inputs import check_booleans, check_kind
from relational_rnn.nn._pretrained import Pretrained
from relational_rnn.nn.initial_weights import draw_glorot

# Shape legend: B batch, R objects, D features of an object, Q features of a question, G width of the pairs' MLP,
#               A features of the answer


class RelationNetwork(Pretrained):
    r"""A Relation Network (Santoro et al., 2017, arXiv:1706.01427, equation 1, with a question):

    $$ a = f_\phi\Big(\textstyle\sum_{i,j} g_\theta(o_i, o_j, q)\Big) $$

    g is an MLP with a ReLU after every layer, f one with a last layer that is linear; the sum runs over all ordered
    pairs, an object with itself included. It is no recurrent core: it has no state and no order of objects, so give
    objects their positions as features where these matter. What `Core.rows` returns can be its objects and mask.

    The first layer of g is computed per object and per question and added up for the pairs, which is the same function;
    everything after it takes memory and time in proportion to R * R * G.

    The defaults are the sizes of the paper's bAbI model but for f, whose two hidden layers have 256 units each (256 and
    512 there).

    Args:
        object_size: features of an object, D.
        question_size: features of the question, Q.
        answer_size: features of the answer, A; logits, for a choice.
        pair_size: width of g, G.
        pair_layers: layers of g.
        answer_hidden_size: width of the hidden layers of f.
        answer_hidden_layers: hidden layers of f.

    Shape:
        objects [B, R, D], question [B, Q], mask [B, R] booleans, true where an object exists (None: all do); to [B, A].
        No objects at all give what f makes of a sum of 0.

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
        # The first layer of g, in columns for the first object, the second and the question.
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
        self._check(objects, question, mask)
        if mask is not None:
            objects = objects.masked_fill(~mask.unsqueeze(2), 0)
        first, second = self.first(objects).unsqueeze(2), self.second(objects).unsqueeze(1)
        pairs = self.pairs(first + second + self.question(question)[:, None, None])  # [B, R, R, G]
        if mask is not None:
            both = mask.unsqueeze(2) & mask.unsqueeze(1)
            pairs = pairs.masked_fill(~both.unsqueeze(3), 0)
        return self.answer(pairs.sum((1, 2)))

    def _check(self, objects: Tensor, question: Tensor, mask: Tensor | None) -> None:
        where = "RelationNetwork"
        check_shape(where, "objects", objects, {"B": None, "R": None, "D": self.object_size})
        check_shape(where, "question", question, {"B": objects.shape[0], "Q": self.question_size})
        check_kind(self, "objects", objects)
        check_kind(self, "question", question)
        if mask is None:
            return
        check_shape(where, "mask", mask, {"B": objects.shape[0], "R": objects.shape[1]})
        check_booleans(where, "mask", mask, objects.device)
