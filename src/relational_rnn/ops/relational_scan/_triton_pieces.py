"""What both Triton kernels are made of: products, norms and attention over one tile of memory rows.

A tile is BM consecutive rows of memory, the N rows of BS sequences and some rows of padding. Every result of a step is
written to and read back from global memory, so that no size is bound by what registers hold. `tl.debug_barrier` stands
between a piece that writes and one that reads what other threads wrote. Names in capitals are constants of a kernel.
"""

# Shape legend: BM rows of a tile, BI input rows of its sequences (both padded), BN, BK columns and inner numbers of a
#               product's tile, BC columns of an elementwise tile, KP, VP padded sizes of a key and a value

# A kernel is not typed as Python is, and its language is an extra.
# pyright: reportMissingImports=false, reportGeneralTypeIssues=false, reportArgumentType=false
# pyright: reportPossiblyUnboundVariable=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def rows_of_tile(batch, N, BS, BM):
    """Of every row of the tile, N per sequence: its sequence here, its sequence, its place, whether it exists."""
    row = tl.arange(0, BM)
    here = row // N
    sequence = (tl.program_id(0) * BS + here).to(tl.int64)
    return here, sequence, row % N, (here < BS) & (sequence < batch)


@triton.jit
def block(ptr, rows, valid, cols, WIDTH, ACC):
    """Columns `cols` of rows `rows` of a matrix WIDTH wide, 0 outside."""
    mask = valid[:, None] & (cols < WIDTH)[None, :]
    return tl.load(ptr + rows[:, None] * WIDTH + cols[None, :], mask=mask, other=0.0).to(ACC)


@triton.jit
def put(ptr, rows, valid, cols, value, WIDTH):
    """Write what `block` would read."""
    mask = valid[:, None] & (cols < WIDTH)[None, :]
    tl.store(ptr + rows[:, None] * WIDTH + cols[None, :], value.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def vector(ptr, cols, WIDTH, ACC):
    return tl.load(ptr + cols, mask=cols < WIDTH, other=0.0).to(ACC)


@triton.jit
def product(a, rows, valid, w, cols, INNER, OUT, SK, SN, BM, BN, BK, STAGES, PRECISION, ACC):
    """[BM, BN]: rows of `a`, INNER wide, times columns of the matrix with element (k, n) at w + k * SK + n * SN."""
    total = tl.zeros((BM, BN), dtype=ACC)
    for k in tl.range(0, INNER, BK, num_stages=STAGES):
        inner = k + tl.arange(0, BK)
        inside = inner < INNER
        left = tl.load(a + rows[:, None] * INNER + inner[None, :], mask=valid[:, None] & inside[None, :], other=0.0)
        right = tl.load(
            w + inner[:, None] * SK + cols[None, :] * SN, mask=inside[:, None] & (cols < OUT)[None, :], other=0.0
        )
        total = tl.dot(left, right, total, input_precision=PRECISION, out_dtype=ACC)
    return total


@triton.jit
def statistics(x, rows, valid, WIDTH, EPS, BM, BC, ACC):
    """Mean and 1 / standard deviation of rows of `x`, both [BM]."""
    total = tl.zeros((BM,), dtype=ACC)
    for c in range(0, WIDTH, BC):
        total += tl.sum(block(x, rows, valid, c + tl.arange(0, BC), WIDTH, ACC), 1)
    mean = total / WIDTH
    total = tl.zeros((BM,), dtype=ACC)
    for c in range(0, WIDTH, BC):
        cols = c + tl.arange(0, BC)
        centred = tl.where((cols < WIDTH)[None, :], block(x, rows, valid, cols, WIDTH, ACC) - mean[:, None], 0.0)
        total += tl.sum(centred * centred, 1)
    return mean, 1 / tl.sqrt(total / WIDTH + EPS)


@triton.jit
def norm_backward(x, rows, valid, dy, own, weight, sums, out, out_rows, WIDTH, EPS, BM, BC, ACC):
    """Back through a norm of rows of `x`, from `dy` (rows `own`) to `out`; adds to its `sums` [2, WIDTH]."""
    mean, rstd = statistics(x, rows, valid, WIDTH, EPS, BM, BC, ACC)
    first = tl.zeros((BM,), dtype=ACC)
    second = tl.zeros((BM,), dtype=ACC)
    for c in range(0, WIDTH, BC):
        cols = c + tl.arange(0, BC)
        xhat = (block(x, rows, valid, cols, WIDTH, ACC) - mean[:, None]) * rstd[:, None]
        d = block(dy, own, valid, cols, WIDTH, ACC)
        g = d * vector(weight, cols, WIDTH, ACC)[None, :]
        first += tl.sum(g, 1)
        second += tl.sum(g * xhat, 1)
        inside = cols < WIDTH
        here = sums + cols
        tl.store(here, tl.load(here, mask=inside, other=0.0) + tl.sum(d * xhat, 0), mask=inside)
        here += WIDTH
        tl.store(here, tl.load(here, mask=inside, other=0.0) + tl.sum(d, 0), mask=inside)
    first = first / WIDTH
    second = second / WIDTH
    for c in range(0, WIDTH, BC):
        cols = c + tl.arange(0, BC)
        xhat = (block(x, rows, valid, cols, WIDTH, ACC) - mean[:, None]) * rstd[:, None]
        g = block(dy, own, valid, cols, WIDTH, ACC) * vector(weight, cols, WIDTH, ACC)[None, :]
        put(out, out_rows, valid, cols, rstd[:, None] * (g - first[:, None] - xhat * second[:, None]), WIDTH)


@triton.jit
def part(z, rows, valid, start, mean, rstd, weight, bias, SIZE, PADDED, WIDTH, NORM, ACC):
    """[rows, PADDED]: numbers start .. start + SIZE of rows of `z`, normalised; 0 in the padding's columns."""
    cols = tl.arange(0, PADDED)
    inside = cols < SIZE
    found = tl.load(
        z + rows[:, None] * WIDTH + (start + cols)[None, :], mask=valid[:, None] & inside[None, :], other=0.0
    ).to(ACC)
    if NORM:
        scale = tl.load(weight + start + cols, mask=inside, other=0.0).to(ACC)
        shift = tl.load(bias + start + cols, mask=inside, other=0.0).to(ACC)
        found = (found - mean[:, None]) * rstd[:, None] * scale[None, :] + shift[None, :]
    return found


@triton.jit
def put_part(ptr, rows, valid, start, value, SIZE, PADDED, WIDTH):
    cols = tl.arange(0, PADDED)
    mask = valid[:, None] & (cols < SIZE)[None, :]
    tl.store(ptr + rows[:, None] * WIDTH + (start + cols)[None, :], value.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def attention(q, k, k_in, same, same_in, PRECISION, ACC):
    """A head's weights over memory rows [BM, BM] and input rows [BM, BI]; 0 between different sequences."""
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION, out_dtype=ACC)
    scores = tl.where(same, scores, float("-inf"))
    scores_in = tl.dot(q, tl.trans(k_in), input_precision=PRECISION, out_dtype=ACC)
    scores_in = tl.where(same_in, scores_in, float("-inf"))
    largest = tl.maximum(tl.max(scores, 1), tl.max(scores_in, 1))
    scores = tl.exp(scores - largest[:, None])
    scores_in = tl.exp(scores_in - largest[:, None])
    total = tl.sum(scores, 1) + tl.sum(scores_in, 1)
    return scores / total[:, None], scores_in / total[:, None]
