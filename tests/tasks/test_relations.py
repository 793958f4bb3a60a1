"""Relations: a slow reasoner reads the stories and answers every question by search."""

from __future__ import annotations

import pytest
import torch

from relational_rnn import InputError
from relational_rnn.tasks.contract import draw_batch
from relational_rnn.tasks.relations import CLASSES, ENTITIES, FAMILIES, RELATIONS, WORDS, Relations

Sentence = tuple[str, str, str]


def read_words(text: str) -> tuple[list[Sentence], list[str]]:
    """(statements as (subject, relation, object), the words of the question)."""
    *statements, question = text.replace(" ?", "").split(" . ")
    found = []
    for statement in statements:
        words = [word for word in statement.split() if word not in ("is", "of", "than")]
        subject, relation, other = words
        found.append((subject, relation, other))
    return found, [word for word in question.split() if word not in ("of", "than", "or", ":")]


def read_vectors(steps: torch.Tensor, entities: int) -> tuple[list[Sentence], list[str]]:
    """The same from features."""
    sizes = [entities, entities, len(RELATIONS), 2]
    sentences = []
    for step in steps:
        subject, other, relation, asks = step.split(sizes)
        assert subject.sum() == other.sum() == relation.sum() == 1
        names = ENTITIES[subject.argmax()], RELATIONS[relation.argmax()], ENTITIES[other.argmax()]
        sentences.append((names, asks.tolist()))
    *statements, ((subject, relation, other), asks) = sentences
    assert all(kind == [0, 0] for _, kind in statements)
    question = ["is", subject, relation, other] if asks == [1, 0] else ["who", "is", relation, subject, other]
    return [names for names, _ in statements], question


def before(statements: list[Sentence], family: tuple[str, str], a: str, b: str) -> bool:
    """Whether a comes before b by any chain of statements of a family."""
    steps = [(s, o) if relation == family[0] else (o, s) for s, relation, o in statements if relation in family]
    reached = {a}
    for _ in steps:
        reached |= {o for s, o in steps if s in reached}
    return b in reached - {a}


def answer(statements: list[Sentence], question: list[str]) -> str:
    """The only answer that follows; fails where none does, or both."""
    relation = question[2] if question[0] == "who" or question[2] in RELATIONS else question[1]
    a, b = [word for word in question if word in ENTITIES]
    family = next(family for family in FAMILIES if relation in family)
    forwards, backwards = before(statements, family, a, b), before(statements, family, b, a)
    assert forwards != backwards
    direct = {frozenset((s, o)) for s, r, o in statements if r in family}
    assert frozenset((a, b)) not in direct or len(direct) == 1  # not said in so many words
    holds = forwards == (relation == family[0])
    if question[0] == "who":
        return a if holds else b
    return "yes" if holds else "no"


def stories(task: Relations, split: str, count: int = 300):
    batch = draw_batch(task, split, 0, seed=2, size=count)
    for i in range(count):
        steps = batch.inputs[i, : batch.lengths[i]]
        read = read_words(WORDS.decode(steps)) if task.form == "words" else read_vectors(steps, task.entities)
        yield *read, CLASSES[batch.targets[i, 0]], task.shape.groups[batch.groups[i]]


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize(("form", "entities"), [("words", 12), ("words", 9), ("vectors", 12), ("vectors", 7)])
def test_targets_are_what_follows_from_the_statements(form, entities, split):
    task = Relations(form=form, chain=3, longest_chain=6, entities=entities, distractors=2)
    chains = set()
    for statements, question, target, group in stories(task, split):
        assert answer(statements, question) == target
        family = next(family for family in FAMILIES if set(question) & set(family))
        chain = [sentence for sentence in statements if sentence[1] in family]
        assert len(statements) - len(chain) == 2  # the distractors are of other families
        told = {name for subject, _, other in chain for name in (subject, other)}
        assert {name for subject, _, other in statements for name in (subject, other)} == told
        assert {*told, target} <= {"yes", "no", *ENTITIES[:entities]}
        chains.add(len(chain))
        if split != "train":
            assert group == f"chain of {len(chain)}"
    assert chains == {"train": {1, 2, 3}, "valid": {3}, "test": {3, 4, 5, 6}}[split]


def test_half_of_the_training_stories_have_the_longest_chain():
    batch = draw_batch(Relations(chain=4, distractors=2), "train", 0, seed=2, size=4000)
    shares = [float((batch.lengths == chain + 3).float().mean()) for chain in (1, 2, 3, 4)]  # the question is a step
    assert shares == pytest.approx([1 / 8, 1 / 8, 1 / 8, 5 / 8], abs=0.03)


def test_lessons_begin_without_distractors_and_grow_to_the_whole_training_set():
    task = Relations(chain=3, distractors=2, curriculum="lessons")
    assert task.lessons == [(1, 0), (1, 2), (2, 2), (3, 2)]
    for level, (longest, distractors) in enumerate(task.lessons):
        batch = draw_batch(task, "train", 0, seed=2, size=300, level=level)
        assert set(batch.lengths.tolist()) == {chain + distractors + 1 for chain in range(1, longest + 1)}
    last, whole = (draw_batch(task, "train", 0, seed=2, size=50, level=level) for level in (3, None))
    assert torch.equal(last.inputs, whole.inputs)
    curriculum = task.make_curriculum()
    assert curriculum is not None
    assert curriculum.levels == 4
    assert Relations(distractors=0).lessons == [(1, 0), (2, 0), (3, 0)]
    assert Relations().make_curriculum() is None


def test_words_and_vectors_tell_the_same_stories():
    words, vectors = (list(stories(Relations(form=form), "test", 50)) for form in ("words", "vectors"))
    assert words == vectors


def test_answers_and_questions_are_balanced():
    kinds = {"yes": 0, "no": 0, "first": 0, "second": 0}
    relations = dict.fromkeys(RELATIONS, 0)
    for _, question, target, _ in stories(Relations(form="words"), "train", 4000):
        kinds[target if target in kinds else "first" if question[3] == target else "second"] += 1
        relations[next(word for word in question if word in RELATIONS)] += 1
    assert all(abs(n - 1000) < 120 for n in kinds.values()), kinds
    assert all(abs(n - 500) < 90 for n in relations.values()), relations


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"chain": 1}, "there are no such chains"),
        ({"chain": 5, "longest_chain": 4}, "there are no such chains"),
        ({"longest_chain": 12}, r"there are no such chains(.|\n)*<= 11"),
        ({"entities": 13}, "there are not so many names"),
        ({"entities": 6}, r"there are no such chains(.|\n)*<= 5, for 6 entities"),
        ({"chain": 0}, "chain must be a whole number"),
        ({"distractors": -1}, "distractors must be"),
        ({"form": "pictures"}, "form is not a known choice"),
        ({"curriculum": "mix"}, "curriculum is not a known choice"),
        ({"curriculum": "lessons", "window": 0}, "window must be a whole number"),
        ({"curriculum": "lessons", "mastered": 0.0}, "mastered must be above 0"),
        ({"mastered": 0.2}, "mastered would have no effect"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(InputError, match=f"Relations: {message}"):
        Relations(**wrong)
