"""The backward kernel: one program takes the sequences of a tile through all steps, from the last to the first.

README.md derives the formulas. The kernel computes the norms' gradients; PyTorch multiplies the others' factors.
"""

# Shape legend: that of _triton_forward.py

# A kernel is not typed as Python is, and its language is an extra.
# pyright: reportMissingImports=false, reportGeneralTypeIssues=false, reportArgumentType=false
# pyright: reportPossiblyUnboundVariable=false

from __future__ import annotations

import triton
import triton.language as tl

from relational_rnn.ops.relational_scan._triton_pieces import (
    attention,
    block,
    norm_backward,
    part,
    product,
    put,
    put_part,
    rows_of_tile,
    statistics,
    tanh,
    vector,
)


@triton.jit(do_not_specialize=["batch", "steps", "start", "stop", "kept"])
def backward_kernel(
    qkv_weight,
    qkv_norm_weight,
    qkv_norm_bias,
    out_weight,
    attention_norm_weight,
    mlp_weight,
    mlp_norm_weight,
    mlp_norm_bias,
    gate_weight,
    input_qkv,  # [B, T, n, F]
    lengths,  # [B]
    reset,  # [B, T]
    # activations, [B, C, N, *]
    before,
    z,
    mixed,
    middle,
    hidden,  # [L - 1, B, C, N, M]
    total,
    gates,
    d_memories,  # [B, T, N, M]
    # written
    carry,  # [B, N, M], in the accumulators' dtype: the memory's gradient, step after step
    d_initial,  # [B, N, M], likewise, added to
    d_input_qkv,  # [B, T, n, F], all but the queries' part
    d_z,  # [B, C, N, *] from here
    d_middle,  # kept where the formulation has a product below it
    d_hidden,
    d_total,
    d_gates,  # before the sigmoid
    qkv_norm_sums,  # [programs, 2, F], added to, as the next two
    attention_norm_sums,
    mlp_norm_sums,
    work,  # [B, N, M], accumulators' dtype
    d_mixed,  # [B, N, M], likewise
    d_qkv,  # [B, N, F], likewise
    batch,
    steps,
    start,
    stop,
    kept,
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
    own = sequence * N + slot
    per_layer = batch.to(tl.int64) * kept * N * M
    dtype = before.dtype.element_ty
    G2: tl.constexpr = 2 * M if UNIT else 2
    program = tl.program_id(0).to(tl.int64)
    qkv_norm_sums += program * 2 * F
    attention_norm_sums += program * 2 * M
    mlp_norm_sums += program * 2 * M
    if lengths is not None:
        length = tl.load(lengths + sequence, mask=valid, other=0)
        stop = tl.minimum(stop, tl.max(length, 0))
    for back in range(0, stop - start):
        t = stop - 1 - back
        happens = valid
        if lengths is not None:
            happens = valid & (t < length)
        act = (sequence * kept + (t - start)) * N + slot
        out = (sequence * steps + t) * N + slot

        # The gates, and the gradient of the candidate into `work`.
        mean, rstd = statistics(total, act, valid, M, EPS, BM, BC, ACC)
        d_input_gate = tl.zeros((BM,), dtype=ACC)
        d_forget_gate = d_input_gate
        for c in range(0, M, BC):
            cols = c + tl.arange(0, BC)
            d = block(carry, own, happens, cols, M, ACC) + block(d_memories, out, happens, cols, M, ACC)
            if GATED:
                at_gate = cols if UNIT else cols * 0
                xhat = (block(total, act, valid, cols, M, ACC) - mean[:, None]) * rstd[:, None]
                weight = vector(mlp_norm_weight, cols, M, ACC)
                new = tanh(xhat * weight[None, :] + vector(mlp_norm_bias, cols, M, ACC)[None, :])
                old = block(before, act, valid, cols, M, ACC)
                input_gate = block(gates, act, valid, at_gate, G2, ACC)
                forget_gate = block(gates, act, valid, G2 // 2 + at_gate, G2, ACC)
                from_input = d * new * input_gate * (1 - input_gate)
                from_forget = d * old * forget_gate * (1 - forget_gate)
                if UNIT:
                    inside = valid[:, None] & (cols < M)[None, :]
                    at = d_gates + act[:, None] * G2 + cols[None, :]
                    tl.store(at, from_input.to(dtype), mask=inside)
                    tl.store(at + M, from_forget.to(dtype), mask=inside)
                else:
                    d_input_gate += tl.sum(from_input, 1)
                    d_forget_gate += tl.sum(from_forget, 1)
                d = d * input_gate * (1 - new * new)
            put(work, own, valid, cols, d, M)
        if GATED and not UNIT:
            tl.store(d_gates + act * G2, d_input_gate.to(dtype), mask=valid)
            tl.store(d_gates + act * G2 + 1, d_forget_gate.to(dtype), mask=valid)
        tl.debug_barrier()
        norm_backward(total, act, valid, work, own, mlp_norm_weight, mlp_norm_sums, d_total, act, M, EPS, BM, BC, ACC)
        tl.debug_barrier()

        for layer in tl.static_range(L - 1, -1, -1):  # the MLP, from its last layer
            above = d_total if layer == L - 1 else d_hidden + layer * per_layer
            for c in range(0, M, BN):
                cols = c + tl.arange(0, BN)
                found = product(
                    above, act, valid, mlp_weight + layer * M * M, cols, M, M, M, 1, BM, BN, BK, STAGES, PRECISION, ACC
                )
                if layer > 0:
                    active = block(hidden + (layer - 1) * per_layer, act, valid, cols, M, ACC) > 0
                    put(d_hidden + (layer - 1) * per_layer, act, valid, cols, tl.where(active, found, 0.0), M)
                else:
                    found += block(d_total, act, valid, cols, M, ACC)
                    if SONNET:
                        put(work, own, valid, cols, found, M)
                    else:
                        put(d_middle, act, valid, cols, found, M)
            tl.debug_barrier()

        if SONNET:
            gain, sums = attention_norm_weight, attention_norm_sums
            norm_backward(mixed, act, valid, work, own, gain, sums, d_mixed, own, M, EPS, BM, BC, ACC)
        else:
            for c in range(0, M, BN):
                cols = c + tl.arange(0, BN)
                found = product(d_middle, act, valid, out_weight, cols, M, M, M, 1, BM, BN, BK, STAGES, PRECISION, ACC)
                put(d_mixed, own, valid, cols, found, M)
        tl.debug_barrier()

        mean = tl.zeros((BM,), dtype=ACC)
        rstd = mean
        if SONNET:
            mean, rstd = statistics(z, act, valid, F, EPS, BM, BC, ACC)
        at_input = (input_sequence * steps + t) * n + input_row
        for h in range(0, H):
            first = h * (2 * K + V)
            q = part(z, act, valid, first, mean, rstd, qkv_norm_weight, qkv_norm_bias, K, KP, F, SONNET, ACC)
            k = part(z, act, valid, first + K, mean, rstd, qkv_norm_weight, qkv_norm_bias, K, KP, F, SONNET, ACC)
            v = part(z, act, valid, first + 2 * K, mean, rstd, qkv_norm_weight, qkv_norm_bias, V, VP, F, SONNET, ACC)
            k_in = part(input_qkv, at_input, input_valid, first + K, None, None, None, None, K, KP, F, False, ACC)
            v_in = part(input_qkv, at_input, input_valid, first + 2 * K, None, None, None, None, V, VP, F, False, ACC)
            q, k, k_in = (q * scale).to(dtype), k.to(dtype), k_in.to(dtype)
            p, p_in = attention(q, k, k_in, same, same_in, PRECISION, ACC)
            d = part(d_mixed, own, valid, h * V, None, None, None, None, V, VP, M, False, ACC).to(dtype)

            d_p = tl.dot(d, tl.trans(v.to(dtype)), input_precision=PRECISION, out_dtype=ACC)
            d_p_in = tl.dot(d, tl.trans(v_in.to(dtype)), input_precision=PRECISION, out_dtype=ACC)
            along = (tl.sum(p * d_p, 1) + tl.sum(p_in * d_p_in, 1))[:, None]
            d_scores = (p * (d_p - along)).to(dtype)
            d_scores_in = (p_in * (d_p_in - along)).to(dtype)

            d_v = tl.dot(tl.trans(p.to(dtype)), d, input_precision=PRECISION, out_dtype=ACC)
            d_v_in = tl.dot(tl.trans(p_in.to(dtype)), d, input_precision=PRECISION, out_dtype=ACC)
            d_q = tl.dot(d_scores, k, input_precision=PRECISION, out_dtype=ACC)
            d_q += tl.dot(d_scores_in, k_in, input_precision=PRECISION, out_dtype=ACC)
            d_k = tl.dot(tl.trans(d_scores), q, input_precision=PRECISION, out_dtype=ACC)
            d_k_in = tl.dot(tl.trans(d_scores_in), q, input_precision=PRECISION, out_dtype=ACC)
            put_part(d_input_qkv, at_input, input_valid, first + K, d_k_in, K, KP, F)
            put_part(d_input_qkv, at_input, input_valid, first + 2 * K, d_v_in, V, VP, F)
            if SONNET:
                put_part(d_qkv, own, valid, first, d_q * scale, K, KP, F)
                put_part(d_qkv, own, valid, first + K, d_k, K, KP, F)
                put_part(d_qkv, own, valid, first + 2 * K, d_v, V, VP, F)
            else:
                put_part(d_z, act, valid, first, d_q * scale, K, KP, F)
                put_part(d_z, act, valid, first + K, d_k, K, KP, F)
                put_part(d_z, act, valid, first + 2 * K, d_v, V, VP, F)
        tl.debug_barrier()
        if SONNET:
            norm_backward(z, act, valid, d_qkv, own, qkv_norm_weight, qkv_norm_sums, d_z, act, F, EPS, BM, BC, ACC)
            tl.debug_barrier()

        for c in range(0, M, BN):  # the memory before the step
            cols = c + tl.arange(0, BN)
            found = product(d_z, act, valid, qkv_weight, cols, F, M, M, 1, BM, BN, BK, STAGES, PRECISION, ACC)
            if SONNET:
                found += block(d_mixed, own, valid, cols, M, ACC)
            passed = block(carry, own, valid, cols, M, ACC)
            if GATED:
                at_gate = cols if UNIT else cols * 0
                through = product(
                    d_gates, act, valid, gate_weight, cols, G2, M, M, 1, BM, BN, BK, STAGES, PRECISION, ACC
                )
                squashed = tanh(block(before, act, valid, cols, M, ACC))
                found += through * (1 - squashed * squashed)
                forget_gate = block(gates, act, valid, G2 // 2 + at_gate, G2, ACC)
                found += (passed + block(d_memories, out, happens, cols, M, ACC)) * forget_gate
            found = tl.where(happens[:, None], found, passed)
            if reset is not None:
                begins = tl.load(reset + sequence * steps + t, mask=happens, other=0) != 0
                put(d_initial, own, begins, cols, block(d_initial, own, begins, cols, M, ACC) + found, M)
                found = tl.where(begins[:, None], 0.0, found)
            put(carry, own, valid, cols, found, M)
        tl.debug_barrier()
