// What the page's data say, as functions of step t, block s, head h, slots i and j, and number k. Defines `numbers`.
const numbers = (() => {
  "use strict";
  const { unpack } = drawing;
  const { data, T, range, largest } = steps;
  const { blocks: S, heads: H, slots: N, inputs, width: M, gateWidth: G, hasBefore } = data;
  const R = N + inputs;
  const attention = unpack(data.attention); // [T, S, H, N, R]
  const gates = { input: unpack(data.inputGate), forget: unpack(data.forgetGate) }; // [T, N, G]
  const memory = unpack(data.memory); // [T + 1, N, M] with the memory before the first step, or [T, N, M]
  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

  const weight = (t, s, h, i, j) => attention[(((t * S + s) * H + h) * N + i) * R + j];
  const look = (t, s, h, i, j) => (h >= 0 ? weight(t, s, h, i, j) : mean(range(H).map((k) => weight(t, s, k, i, j))));
  const gate = (kind, t, i, k) => gates[kind][(t * N + i) * G + k];
  const gateMean = (kind, t, i) => mean(range(G).map((k) => gate(kind, t, i, k)));
  const content = (t, i, k) => memory[((t + hasBefore) * N + i) * M + k];
  const known = (t) => t > 0 || hasBefore; // is the memory before step t known?
  const change = (t, i, k) => (known(t) ? content(t, i, k) - content(t - 1, i, k) : 0);
  const length = (values) => Math.sqrt(values.reduce((a, b) => a + b * b, 0));
  const moved = (t, i) => length(range(M).map((k) => change(t, i, k)));
  const movedAll = range(T).map((t) => range(N).map((i) => moved(t, i)));
  const mostMoved = largest(movedAll.flat());
  const mostHeld = largest(memory);
  const mostChanged = range(T).reduce(
    (most, t) => range(N * M).reduce((a, n) => Math.max(a, Math.abs(change(t, Math.floor(n / M), n % M))), most),
    0,
  ) || 1;
  return { R, gates, mean, look, gate, gateMean, content, known, change, length, movedAll, mostMoved, mostHeld, mostChanged };
})();
