"""The forward kernel: one program takes the sequences of a tile through all steps."""

# Shape legend: that of triton_scan.py; C steps whose activations are kept, those of the call, or 1 that each overwrites

# A kernel is not typed as Python is, and its language is an extra.
# pyright: reportMissingImports=false, reportGeneralTypeIssues=false, reportArgumentType=false
# pyright: reportPossiblyUnboundVariable=false

from __future__ import annotations

import triton
import triton.language as tl

from relational_rnn.ops.relational_scan._triton_pieces import (
    attention,
    block,
    part,
    product,
    put,
    put_part,
    rows_of_tile,
    statistics,
    tanh,
    vector,
)


@triton.jit(do_not_specialize=["batch", "steps", "start", "stop", "kept", "initial_stride"])
def forward_kernel(
    # weights [out, in], biases, norms
    qkv_weight,
    qkv_bias,
    qkv_norm_weight,
    qkv_norm_bias,
    out_weight,
    out_bias,
    attention_norm_weight,
    attention_norm_bias,
    mlp_weight,  # [L, M, M]
    mlp_bias,  # [L, M]
    mlp_norm_weight,
    mlp_norm_bias,
    gate_weight,  # [2G, M]
    # the sequence
    input_qkv,  # [B, T, n, F], normalised
    gate_terms,  # [B, T, 2G], with both biases and the two constants
    lengths,  # [B]
    reset,  # [B, T]
    initial,  # [N, M] or [B, N, M]
    memories,  # [B, T, N, M], written, or None
    state,  # [B, N, M], the memory: read first, written after every step
    # activations, [B, C, N, *]
    before,  # M, the memory before the step
    z,  # F
    mixed,  # M
    middle,  # M
    hidden,  # [L - 1, B, C, N, M]
    total,  # M
    gates,  # 2G
    squashed,  # [B, N, M], tanh of the memory before the step
    batch,
    steps,
    start,
    stop,
    kept,  # C
    initial_stride,  # of the batch, 0 where all sequences share it
    scale: tl.constexpr,
    EPS: tl.constexpr,
    N: tl.constexpr,
    n: tl.constexpr,
    M: tl.constexpr,
    F: tl.constexpr,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    L: tl.constexpr,
    GATED: tl.constexpr,
    UNIT: tl.constexpr,
    SONNET: tl.constexpr,
    KEEP: tl.constexpr,
    BS: tl.constexpr,
    BM: tl.constexpr,
    BI: tl.constexpr,
    KP: tl.constexpr,
    VP: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    BC: tl.constexpr,
    STAGES: tl.constexpr,
    PRECISION: tl.constexpr,
    ACC: tl.constexpr,
):
    here, sequence, slot, valid = rows_of_tile(batch, N, BS, BM)
    input_here, input_sequence, input_row, input_valid = rows_of_tile(batch, n, BS, BI)
    same = here[:, None] == here[None, :]
    same_in = here[:, None] == input_here[None, :]
    own = sequence * N + slot  # the row in [B, N, *]
    per_layer = batch.to(tl.int64) * kept * N * M
    dtype = state.dtype.element_ty
    G2: tl.constexpr = 2 * M if UNIT else 2
    if lengths is not None:
        length = tl.load(lengths + sequence, mask=valid, other=0)
        stop = tl.minimum(stop, tl.max(length, 0))
    for t in range(start, stop):
        happens = valid
        if lengths is not None:
            happens = valid & (t < length)
        act = (sequence * kept + (t - start) * KEEP) * N + slot  # the row in [B, C, N, *]

        for c in range(0, M, BC):  # the memory before the step
            cols = c + tl.arange(0, BC)
            memory = block(state, own, valid, cols, M, ACC)
            if reset is not None:
                begins = tl.load(reset + sequence * steps + t, mask=happens, other=0) != 0
                fresh = tl.load(
                    initial + (sequence * initial_stride + slot * M)[:, None] + cols[None, :],
                    mask=begins[:, None] & (cols < M)[None, :],
                    other=0.0,
                ).to(ACC)
                memory = tl.where(begins[:, None], fresh, memory)
            put(before, act, valid, cols, memory, M)
            if GATED:
                put(squashed, own, valid, cols, tanh(memory), M)
        tl.debug_barrier()

        for c in range(0, F, BN):  # queries, keys and values
            cols = c + tl.arange(0, BN)
            found = product(before, act, valid, qkv_weight, cols, M, F, 1, M, BM, BN, BK, STAGES, PRECISION, ACC)
            put(z, act, valid, cols, found + vector(qkv_bias, cols, F, ACC)[None, :], F)
        if GATED:
            for c in range(0, G2, BN):
                cols = c + tl.arange(0, BN)
                found = product(
                    squashed, own, valid, gate_weight, cols, M, G2, 1, M, BM, BN, BK, STAGES, PRECISION, ACC
                )
                found += block(gate_terms, sequence * steps + t, valid, cols, G2, ACC)
                put(gates, act, valid, cols, tl.sigmoid(found), G2)
        tl.debug_barrier()

        mean = tl.zeros((BM,), dtype=ACC)
        rstd = mean
        if SONNET:
            mean, rstd = statistics(z, act, valid, F, EPS, BM, BC, ACC)
        at = (input_sequence * steps + t) * n + input_row
        for h in range(0, H):
            first = h * (2 * K + V)
            q = part(z, act, valid, first, mean, rstd, qkv_norm_weight, qkv_norm_bias, K, KP, F, SONNET, ACC)
            k = part(z, act, valid, first + K, mean, rstd, qkv_norm_weight, qkv_norm_bias, K, KP, F, SONNET, ACC)
            v = part(z, act, valid, first + 2 * K, mean, rstd, qkv_norm_weight, qkv_norm_bias, V, VP, F, SONNET, ACC)
            k_in = part(input_qkv, at, input_valid, first + K, None, None, None, None, K, KP, F, False, ACC)
            v_in = part(input_qkv, at, input_valid, first + 2 * K, None, None, None, None, V, VP, F, False, ACC)
            p, p_in = attention((q * scale).to(dtype), k.to(dtype), k_in.to(dtype), same, same_in, PRECISION, ACC)
            attended = tl.dot(p.to(dtype), v.to(dtype), input_precision=PRECISION, out_dtype=ACC)
            attended += tl.dot(p_in.to(dtype), v_in.to(dtype), input_precision=PRECISION, out_dtype=ACC)
            if SONNET:
                attended += part(before, act, valid, h * V, None, None, None, None, V, VP, M, False, ACC)
            put_part(mixed, act, valid, h * V, attended, V, VP, M)
        tl.debug_barrier()

        if SONNET:
            mean, rstd = statistics(mixed, act, valid, M, EPS, BM, BC, ACC)
            for c in range(0, M, BC):
                cols = c + tl.arange(0, BC)
                xhat = (block(mixed, act, valid, cols, M, ACC) - mean[:, None]) * rstd[:, None]
                weight = vector(attention_norm_weight, cols, M, ACC)
                bias = vector(attention_norm_bias, cols, M, ACC)
                put(middle, act, valid, cols, xhat * weight[None, :] + bias[None, :], M)
        else:
            for c in range(0, M, BN):
                cols = c + tl.arange(0, BN)
                found = product(mixed, act, valid, out_weight, cols, M, M, 1, M, BM, BN, BK, STAGES, PRECISION, ACC)
                put(middle, act, valid, cols, found + vector(out_bias, cols, M, ACC)[None, :], M)
        tl.debug_barrier()

        for layer in tl.static_range(L):
            for c in range(0, M, BN):
                cols = c + tl.arange(0, BN)
                below = middle if layer == 0 else hidden + (layer - 1) * per_layer
                found = product(
                    below, act, valid, mlp_weight + layer * M * M, cols, M, M, 1, M, BM, BN, BK, STAGES, PRECISION, ACC
                )
                found += vector(mlp_bias + layer * M, cols, M, ACC)[None, :]
                if layer == L - 1:
                    put(total, act, valid, cols, found + block(middle, act, valid, cols, M, ACC), M)
                else:
                    put(hidden + layer * per_layer, act, valid, cols, tl.maximum(found, 0.0), M)
            tl.debug_barrier()

        mean, rstd = statistics(total, act, valid, M, EPS, BM, BC, ACC)
        for c in range(0, M, BC):
            cols = c + tl.arange(0, BC)
            xhat = (block(total, act, valid, cols, M, ACC) - mean[:, None]) * rstd[:, None]
            weight = vector(mlp_norm_weight, cols, M, ACC)
            new = xhat * weight[None, :] + vector(mlp_norm_bias, cols, M, ACC)[None, :]
            old = block(before, act, valid, cols, M, ACC)
            if GATED:
                at_gate = cols if UNIT else cols * 0
                input_gate = block(gates, act, valid, at_gate, G2, ACC)
                forget_gate = block(gates, act, valid, G2 // 2 + at_gate, G2, ACC)
                new = input_gate * tanh(new) + forget_gate * old
            put(state, own, happens, cols, new, M)
            if memories is not None:
                put(memories, (sequence * steps + t) * N + slot, happens, cols, new, M)
        tl.debug_barrier()
