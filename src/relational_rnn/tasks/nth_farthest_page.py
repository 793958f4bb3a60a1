"""A sequence of N-th farthest through a trained model."""

# Shape legend: B sequences, T steps, F features of a step, C answer classes

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from relational_rnn._check import check_positive
from relational_rnn.inspection.following import ReferenceExample, reference_section
from relational_rnn.inspection.page import Page, page, slots_in
from relational_rnn.inspection.statistics import attention_statistics, statistics_section
from relational_rnn.inspection.token_values import TokenValues
from relational_rnn.nn.relational_memory import RelationalMemory
from relational_rnn.runs import Asked, Example, LoadedRun
from relational_rnn.tasks.contract import TaskBatch
from relational_rnn.tasks.generated import split_batches
from relational_rnn.tasks.model import TaskModel
from relational_rnn.tasks.nth_farthest import NthFarthest, NthFarthestRun


def farthest_page(
    model: TaskModel,
    task: NthFarthest,
    batch: TaskBatch,
    number: int,
    *,
    title: str,
    statistics: bool = False,
    before: int = 0,
) -> Page:
    """The page of one sequence of a batch, with the paper's figure 3 for references seen first, in the middle and last.

    Args:
        model: it is put into evaluation mode.
        task: that the batch is from.
        batch: the figure takes its first sequences that are answered right, or the first.
        number: which sequence the page is about, from 1.
        title: heading of the page.
        statistics: add the attention's statistics over the whole batch.
        before: sequences of the set before this batch.

    Raises:
        InputError: the model has no relational memory, or there is no such sequence.
    """
    core = slots_in(model.eval().core)
    count, steps = batch.inputs.shape[:2]
    Asked(example=number).number(count)
    labels, reference = read_sequences(task, batch.inputs)
    row = number - 1
    with torch.inference_mode():
        right = model(batch).argmax(-1) == batch.targets[:, 0]
        inputs = batch.inputs[row : row + 1]
        outputs, _ = core(inputs)
        chances = model.head(outputs[0]).softmax(-1).double()
        without = torch.cat([torch.cat([inputs[:, :t], inputs[:, t + 1 :]], 1) for t in range(steps)])
        shorter, _ = core(without)
        left = model.head(shorter[:, -1]).softmax(-1).double()
        traces = core.trace(batch.inputs)
    answer = int(chances[-1].argmax())
    vectors = batch.inputs[row, :, : task.dimensions]
    distances = (vectors - vectors[reference[row]]).norm(dim=-1).tolist()
    wanted = int(batch.targets[row, 0])
    tokens = [
        f"vector {int(label) + 1}"
        + (" (the reference)" if t == reference[row] else "")
        + (" (the right answer)" if label == wanted else "")
        for t, label in enumerate(labels[row])
    ]
    places = {"first": 0, "in the middle": steps // 2, "last": steps - 1}
    examples = []
    for words, place in places.items():
        there = (reference == place).nonzero().flatten().tolist()
        for i in sorted(there, key=lambda i: not right[i])[:1]:
            trace = traces.map(lambda tensor, i=i: tensor[i])
            verdict = "answered right" if right[i] else "answered wrong"
            caption = f"Reference seen {words} (sequence {before + i + 1}, {verdict})"
            examples.append(ReferenceExample(trace=trace, reference=place, caption=caption))
    sections = [reference_section(examples)]
    if statistics:
        one, many = traces.map(lambda tensor: tensor[row]), attention_statistics([(traces, None)])
        sections.append(statistics_section(one, many, what=f"{count:,} sequences"))
    said = f"The model answers 'vector {answer + 1}' with probability {chances[-1, answer]:.1%}"
    said += ", which is right." if answer == wanted else f"; right would be 'vector {wanted + 1}'."
    distance = "Euclidean distance of the vector to the reference, which the answer depends on"
    left_out = f"by how much the probability of 'vector {answer + 1}' falls when this step is left out"
    return page(
        traces.map(lambda tensor: tensor[row]),
        tokens,
        title=title,
        lead=[f"Question: {farthest_question(task, batch.inputs[row])}", said],
        before=core.initial_state(1).detach().view(-1, core.mem_slots, core.width)[-1],
        answers={f"vector {c + 1}": chances[:, c].tolist() for c in range(chances.shape[1])},
        right=f"vector {wanted + 1}",
        token_values=[
            TokenValues("distance", distance, distances),
            TokenValues("left out", left_out, (chances[-1, answer] - left[:, answer]).tolist(), most=1),
        ],
        layout="lines",
        sections=sections,
    )


def read_sequences(task: NthFarthest, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """(the labels [B, T], the step of the reference [B]) of encoded sequences [B, T, F]."""
    ones = inputs[..., task.dimensions :].unflatten(-1, (3, task.objects)).argmax(-1)  # [B, T, 3]
    labels = ones[..., 0]
    asked = ones[:, :1, 1 if task.convention == "sonnet" else 2]
    return labels, (labels == asked).int().argmax(1)


def farthest_question(task: NthFarthest, inputs: Tensor) -> str:
    """What an encoded sequence [T, F] asks, in words."""
    labels, reference = read_sequences(task, inputs[None])
    label = int(labels[0, reference[0]])
    ones = inputs[0, task.dimensions :].unflatten(-1, (3, task.objects)).argmax(-1)
    number = int(ones[2 if task.convention == "sonnet" else 1])
    n = number + (task.convention == "paper")
    meaning = {
        "paper": f"which vector is number {n} in distance from vector {label + 1}, the farthest being number 1?",
        "l0sg": f"which vector is number {n} in distance from vector {label + 1}, the farthest being number 0?",
        "sonnet": f"which vector is number {n} in nearness to vector {label + 1}, itself being number 0?",
    }
    return meaning[task.convention]


def worst_sequences(model: TaskModel, batches: Sequence[TaskBatch], count: int) -> list[tuple[int, int, int, float]]:
    """The `count` sequences of every group whose right answer is the least probable; groups in order, the worst first.

    Returns:
        of each the number of its batch and its row there, both from 0, the class that the model answers with, and the
        probability of the right one.
    """
    check_positive("worst_sequences", count=count)
    model.eval()
    found: dict[int, list[tuple[int, int, int, float]]] = {}
    for number, batch in enumerate(batches):
        with torch.inference_mode():
            chances = model(batch).softmax(-1)  # [B, C], as every sequence is asked once
        right = chances.gather(1, batch.targets).squeeze(1).tolist()
        rows = zip(batch.groups.tolist(), chances.argmax(-1).tolist(), right, strict=True)
        for row, (group, answer, chance) in enumerate(rows):
            found.setdefault(group, []).append((number, row, answer, chance))
    return [entry for group in sorted(found) for entry in sorted(found[group], key=lambda entry: entry[3])[:count]]


def inspect_sequence(run: LoadedRun[NthFarthestRun], asked: Asked) -> Page:
    """The page of a test sequence of a run."""
    asked.refuse(run.workload.name, "task", "text")
    number = asked.number(run.config.test_samples)
    batch = (number - 1) // run.config.batch_size
    return _page(run, split_batches(run.config, "test")[batch], number, asked.statistics)


def worst_examples(run: LoadedRun[NthFarthestRun], count: int) -> list[Example]:
    """The worst test sequences for every n, with their pages where the memory has one."""
    task, batches, found = run.config.data, split_batches(run.config, "test"), []
    for place, row, answer, chance in worst_sequences(run.model, batches, count):
        batch, number = batches[place], place * run.config.batch_size + row + 1
        found.append(
            Example(
                group=task.shape.groups[int(batch.groups[row])],
                number=number,
                question=farthest_question(task, batch.inputs[row]),
                right=f"vector {int(batch.targets[row, 0]) + 1}",
                answer=f"vector {answer + 1}",
                right_probability=chance,
                html=_page(run, batch, number).html if isinstance(run.model.core, RelationalMemory) else None,
            )
        )
    return found


def _page(run: LoadedRun[NthFarthestRun], batch: TaskBatch, number: int, statistics: bool = False) -> Page:
    """Of sequence `number` of the test set, which is in this batch."""
    title = f"A look inside {run.folder.resolve().name}: {run.workload.name}, example {number}"
    before, row = divmod(number - 1, run.config.batch_size)
    before *= run.config.batch_size
    return farthest_page(run.model, run.config.data, batch, row + 1, title=title, statistics=statistics, before=before)
