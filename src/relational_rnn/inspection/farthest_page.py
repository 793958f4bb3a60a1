"""A sequence of N-th farthest through a trained model."""

# Shape legend: B sequences, T steps, F features of a step, C answer classes

from __future__ import annotations

import torch
from torch import Tensor

from relational_rnn.inspection.choosing import check_example, slots_in
from relational_rnn.inspection.following import ReferenceExample, reference_section
from relational_rnn.inspection.page import Page, page
from relational_rnn.inspection.statistics import attention_statistics, statistics_section
from relational_rnn.inspection.token_values import TokenValues
from relational_rnn.tasks.contract import TaskBatch
from relational_rnn.tasks.model import TaskModel
from relational_rnn.tasks.nth_farthest import NthFarthest


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
        model: trained on the task; it is put into evaluation mode.
        task: that the batch is from.
        batch: sequences; the figure takes the first of them with each place of the reference that are answered right,
            or the first ones where none is.
        number: which sequence the page is about, from 1.
        title: heading of the page.
        statistics: add the attention's statistics over the whole batch.
        before: sequences of the set before this batch; captions count from there.

    Raises:
        InputError: the model has no relational memory, or there is no such sequence.
    """
    core = slots_in(model.eval().core)
    count, steps = batch.inputs.shape[:2]
    check_example(number, count)
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
        chosen = [i for i in there if right[i]] or there
        if chosen:
            i = chosen[0]
            verdict = "answered right" if right[i] else "answered wrong"
            trace = traces.map(lambda tensor, i=i: tensor[i])
            caption = f"Reference seen {words} (sequence {before + i + 1}, {verdict})"
            examples.append(ReferenceExample(trace=trace, reference=place, caption=caption))
    sections = [reference_section(examples)]
    if statistics:
        one = attention_statistics([(traces.map(lambda tensor: tensor[row : row + 1]), None)])
        sections.append(statistics_section(one, attention_statistics([(traces, None)]), what=f"{count:,} sequences"))
    return page(
        traces.map(lambda tensor: tensor[row]),
        tokens,
        title=title,
        lead=[
            f"Question: {farthest_question(task, batch.inputs[row])}",
            f"The model answers 'vector {answer + 1}' with probability {chances[-1, answer]:.1%}"
            + (", which is right." if answer == wanted else f"; right would be 'vector {wanted + 1}'."),
        ],
        before=core.initial_state(1).detach().view(-1, core.mem_slots, core.width)[-1],
        answers={f"vector {c + 1}": chances[:, c].tolist() for c in range(chances.shape[1])},
        right=f"vector {wanted + 1}",
        token_values=[
            TokenValues(
                name="distance",
                description="Euclidean distance of the vector to the reference: what the answer depends on by rights",
                values=distances,
            ),
            TokenValues(
                name="left out",
                description=f"by how much the probability of 'vector {answer + 1}' falls when this step is left out",
                values=(chances[-1, answer] - left[:, answer]).tolist(),
                most=1,
            ),
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
