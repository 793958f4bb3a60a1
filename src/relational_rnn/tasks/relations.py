"""Relations: who is left of, above, older or greater than whom, when only neighbours in the order have been compared.

Shape legend: B stories, S statements of the longest, W words of a sentence, T steps of the longest, E entities.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from relational_rnn._check import InputError, check_choice, check_positive, describe
from relational_rnn.nn.cores import MemorySizes
from relational_rnn.tasks.characters import Alphabet, close_gaps
from relational_rnn.tasks.contract import Split, Task, TaskBatch, TaskShape
from relational_rnn.tasks.curriculum import Curriculum, check_lessons
from relational_rnn.tasks.generated import TaskRun, TaskWorkload, muon
from relational_rnn.tasks.model import TaskModelConfig
from relational_rnn.training import LoopConfig

Form = Literal["words", "vectors"]
FORMS: tuple[Form, ...] = ("words", "vectors")
RelationsCurriculum = Literal["none", "lessons"]
FAMILIES = (("left", "right"), ("above", "below"), ("older", "younger"), (">", "<"))
"""Each is an order of its own; the second relation is the first one read backwards."""
RELATIONS = tuple(relation for family in FAMILIES for relation in family)
AFTER = {"left": "of", "right": "of", "older": "than", "younger": "than"}
"""The word after a relation."""
ENTITIES = ("Alice", "Bob", "Carol", "Dan", "Eve", "Frank", "Grace", "Hugo", "Ivy", "Jack", "Kate", "Liam")
WORDS = Alphabet([*ENTITIES, *RELATIONS, "is", "of", "than", "or", "who", ":", ".", "?"], between=" ")


@dataclass(frozen=True, kw_only=True, slots=True)
class Relations(Task):
    """Statements about an order, and a question about two that no statement has compared.

        Carol is older than Bob . Alice is older than Carol . Bob is above Alice . who is older : Bob or Alice ?  Alice
        Dan > Eve . Bob < Eve . is Bob < Dan ?                                                                    yes

    As vectors, every sentence is one step: one-hot subject, object and relation, and two features that say whether the
    step is a yes/no question or a who-question. A story is a chain of relations
    between entities in their order, each stated in one of its two directions and all of them shuffled, with
    distractors: statements from another family of relations about the same entities. The question is about two
    entities of the chain that are not neighbours in it (chains of 1 have no others); half of the questions are
    yes/no, half of those yes.

    Training shows chains of 1 to `chain` relations, half of them the longest, as what is stated itself is learned
    before what follows; runs are judged on chains of `chain`, and apart on every longer one up to `longest_chain`.
    With the curriculum "lessons", training begins with chains of 1 without distractors, then come the distractors,
    then longer chains one by one, each when the loss of the lesson before has fallen to `mastered` (see `Curriculum`).

    Plateau: 50 % (yes or no; one of the two who are named). In chains of 2 and 3 the question names an end of the
    order, which the one statement about it decides; from 4 on most questions take several statements. Record: none, the
    task is this package's own, after the chapter's examples.

    Example:
        >>> from relational_rnn.tasks.contract import draw_batch
        >>> batch = draw_batch(Relations(form="words", distractors=0), "valid", 0, seed=0, size=1)
        >>> print(WORDS.decode(batch.inputs[0]), CLASSES[batch.targets[0, 0]])
        Eve is younger than Bob . Ivy is younger than Hugo . Ivy is older than Bob . is Eve younger than Ivy ? yes
    """

    form: Form = "vectors"
    """One word a step, or one sentence a step."""
    chain: int = 3
    """Relations of the longest training chain, at least 2."""
    longest_chain: int = 6
    """Relations of the longest test chain."""
    entities: int = len(ENTITIES)
    """How many different names there are."""
    distractors: int = 1
    """Statements from another family in every story."""
    curriculum: RelationsCurriculum = "none"
    """The whole training set from the first batch on, or in lessons."""
    window: int = 100
    """lessons: updates whose mean loss is looked at."""
    mastered: float = 0.1
    """lessons: the loss, in nats, at which the next one begins."""

    name: ClassVar[str] = "relations"

    def __post_init__(self) -> None:
        where = "Relations"
        check_choice(where, "form", self.form, FORMS)
        check_positive(where, chain=self.chain, longest_chain=self.longest_chain)
        check_positive(where, entities=self.entities)
        if self.entities > len(ENTITIES):
            problem = "there are not so many names"
            raise InputError(describe(where, problem, got=self.entities, expected=f"at most {len(ENTITIES)}"))
        if not 2 <= self.chain <= self.longest_chain < self.entities:
            expected = f"2 <= chain <= longest_chain <= {self.entities - 1}, for {self.entities} entities"
            got = f"chain {self.chain}, longest_chain {self.longest_chain}"
            raise InputError(describe(where, "there are no such chains", got=got, expected=expected))
        if isinstance(self.distractors, bool) or not isinstance(self.distractors, int) or self.distractors < 0:
            problem = "distractors must be a whole number of at least 0"
            raise InputError(describe(where, problem, got=repr(self.distractors)))
        check_lessons(self)

    @property
    def lessons(self) -> list[tuple[int, int]]:
        """(relations of the longest chain, distractors) of each lesson; the last one is the whole training set."""
        last = [(chain, self.distractors) for chain in range(1, self.chain + 1)]
        return [(1, 0), *last] if self.distractors else last

    def make_curriculum(self) -> Curriculum | None:
        if self.curriculum == "none":
            return None
        return Curriculum(len(self.lessons), window=self.window, mastered=self.mastered)

    @property
    def shape(self) -> TaskShape:
        groups = tuple(f"chain of {n}" for n in range(self.chain, self.longest_chain + 1))
        statements = self.chain + self.distractors
        words = self.form == "words"
        return TaskShape(
            inputs=len(WORDS) if words else 2 * self.entities + len(RELATIONS) + 2,
            tokens=words,
            classes=2 + self.entities,
            answer="end",
            steps=statements * STATEMENT_WORDS + QUESTION_WORDS if words else statements + 1,
            groups=groups,
            beyond=groups[1:],
        )

    def draw(self, count: int, generator: torch.Generator, *, split: Split, level: int | None = None) -> TaskBatch:
        sentences, present, answers, chain = self._stories(count, generator, split, level)
        groups = torch.zeros_like(chain) if split != "test" else chain - self.chain
        if self.form == "vectors":
            return TaskBatch(_vectors(sentences, present, self.entities), present.sum(1), answers.unsqueeze(1), groups)
        inputs, lengths = close_gaps(_words(sentences, present).flatten(1))
        return TaskBatch(inputs, lengths, answers.unsqueeze(1), groups)

    def _stories(
        self, count: int, generator: torch.Generator, split: Split, level: int | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Stories as numbers.

        Returns:
            sentences [B, S + 1, 4]: subject, object, relation, kind (0 a statement, 1 yes/no, 2 who);
            present [B, S + 1]: true for sentences that are there, which come first, the question last of them;
            answers [B]; relations of the chain [B].
        """
        device = generator.device

        def whole(high: int, *shape: int) -> Tensor:
            return torch.randint(high, (count, *shape), device=device, generator=generator)

        def uniform(*shape: int) -> Tensor:
            return torch.rand(count, *shape, device=device, generator=generator)

        most, distractors = self.lessons[-1 if level is None or split != "train" else level]
        if split == "test":
            most = self.longest_chain
        least = 1 if split == "train" else self.chain
        chain = least + whole(most - least + 1)
        if split == "train":
            chain = torch.where(uniform() < 0.5, most, chain)
        order = uniform(self.entities).argsort(1)  # the first one is before all others: left of them, older, ...
        family = whole(len(FAMILIES), 1)

        # The chain: neighbours in the order, in either direction.
        turned = whole(2, most)
        links = _sentences(order[:, :most], order[:, 1 : most + 1], family, turned)
        # Distractors: two entities of the chain, in another family.
        others = (family + 1 + whole(len(FAMILIES) - 1, distractors)) % len(FAMILIES)
        a = (uniform(distractors) * (chain + 1).unsqueeze(1)).long()
        b = (a + 1 + (uniform(distractors) * chain.unsqueeze(1)).long()) % (chain + 1).unsqueeze(1)
        noise = _sentences(order.gather(1, a), order.gather(1, b), others, whole(2, distractors))
        # The question: two entities that are not neighbours, where there are such.
        first = (uniform(1) * (chain - 1).unsqueeze(1)).long()
        apart = chain.clamp(max=2).unsqueeze(1) + (uniform(1) * (chain.unsqueeze(1) - first - 1)).long()
        before, after = order.gather(1, first), order.gather(1, first + apart)
        swapped = whole(2, 1)  # which of the two is named first
        subject, other = torch.where(swapped == 1, after, before), torch.where(swapped == 1, before, after)
        backwards, who = whole(2, 1), whole(2, 1)
        question = torch.stack([subject, other, 2 * family + backwards, 1 + who], 2)
        yes = swapped == backwards  # the subject comes before the other exactly when neither or both are turned round
        named = torch.where(backwards == 1, after, before)
        answers = torch.where(who == 1, 2 + named, 1 - yes.long()).squeeze(1)

        statements = torch.cat([links, noise], 1)
        there = torch.arange(most, device=device) < chain.unsqueeze(1)
        there = torch.cat([there, there.new_ones(count, distractors)], 1)
        shuffled = uniform(statements.shape[1]).masked_fill(~there, 2.0).argsort(1)
        sentences = statements.gather(1, shuffled.unsqueeze(2).expand(-1, -1, 4))
        sentences = torch.cat([sentences, torch.zeros_like(question)], 1)
        last = (chain + distractors).view(-1, 1, 1).expand(-1, 1, 4)
        sentences.scatter_(1, last, question)
        present = torch.arange(sentences.shape[1], device=device) <= last[:, :, 0]
        return sentences, present, answers, chain


CLASSES = ("yes", "no", *ENTITIES)
"""What answers mean; with fewer entities the last ones are left out."""
STATEMENT_WORDS, QUESTION_WORDS = 6, 8


def _sentences(before: Tensor, after: Tensor, family: Tensor, turned: Tensor) -> Tensor:
    """[B, S, 4] statements that `before` [B, S] comes before `after`, said backwards where `turned` is 1."""
    subject, other = torch.where(turned == 1, after, before), torch.where(turned == 1, before, after)
    return torch.stack([subject, other, 2 * family + turned, torch.zeros_like(turned)], 2)


def _vectors(sentences: Tensor, present: Tensor, entities: int) -> Tensor:
    """[B, S + 1, F] one-hot features of sentences, zeros where there is none."""
    subject, other, relation, kind = sentences.unbind(2)
    numbered = ((subject, entities), (other, entities), (relation, len(RELATIONS)))
    parts = [torch.nn.functional.one_hot(numbers, size) for numbers, size in numbered]
    asks = torch.nn.functional.one_hot(kind, 3)[..., 1:]
    return torch.cat([*parts, asks], 2).float() * present.unsqueeze(2)


def _words(sentences: Tensor, present: Tensor) -> Tensor:
    """[B, S + 1, W] cells of sentences: what is not said stays empty."""
    subject, other, relation, kind = sentences.unbind(2)
    names = torch.tensor(WORDS.encode(ENTITIES), device=sentences.device)
    relations = torch.tensor(WORDS.encode(RELATIONS), device=sentences.device)[relation]
    after = torch.tensor([WORDS[AFTER[name]] if name in AFTER else 0 for name in RELATIONS], device=sentences.device)
    spelled = relation < 2 * (len(FAMILIES) - 1)  # ">" and "<" are said without "is"
    statement, polar, who = (kind == number for number in range(3))

    def word(text: str, where: Tensor) -> Tensor:
        return where * WORDS[text]

    cells = [
        word("who", who),
        word("is", polar | who),
        (statement | polar) * names[subject],
        word("is", statement & spelled),
        relations,
        (statement | polar) * after[relation],
        word(":", who),
        who * names[subject],
        word("or", who),
        names[other],
        word(".", statement),
        word("?", polar | who),
    ]
    return torch.stack(cells, 2) * present.unsqueeze(2)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RelationsRun(TaskRun):
    """Everything that decides a run on relations."""

    data: Relations = dataclasses.field(default_factory=Relations)
    """The task."""

    task_name: ClassVar[str] = Relations.name


def relations() -> RelationsRun:
    """The chapter's exercise: a memory of 4 slots and one head on chains of up to 3 relations among 8 entities.

    The memory has no gates: with them it took more steps for the first lesson (trials of one seed each).

    The learning rate stays at its highest for the first half, so that a lesson that takes long leaves enough of it:
    along a cosine from the start one seed of two ended at 82.9 %.

    Expected score: 99.3 ± 0.1 % on chains of 3 (three seeds; an LSTM at 4e-3 97.5 ± 0.9 %); 87.1, 76.5 and 67.5 % on
    chains of 4, 5 and 6. Time: 182 processor seconds. Machine: 2-core CPU, one thread.
    Command: `relational-rnn train relations`.
    """
    return RelationsRun(
        data=Relations(entities=8, curriculum="lessons"),
        memory=MemorySizes(mem_slots=4, head_size=64, num_heads=1, gate_style=None),
        model=TaskModelConfig(embedding_size=64, head_size=128, head_layers=2),
        optimizer=muon(learning_rate=2e-3, decay_fraction=0.5),
        loop=LoopConfig(steps=9000, validate_every=500, checkpoint_every=500, log_every=50, threads=1),
    )


WORKLOAD = TaskWorkload(RelationsRun, {"relations": relations})
