// A relational memory at the chosen step, and its slots along time.
(() => {
  "use strict";
  const { inks, series, amount, sign, on, add, label, room, begin, heat, legend, round } = drawing;
  const { data, T, now, $, figure, range, LEFT, stepWidth, timeAxis, cursor, pickSteps, press, choose, from, show } = steps;
  const { R, gates, mean, look, gate, gateMean, content, known, change, length, movedAll, mostMoved, mostHeld,
    mostChanged } = numbers;
  const { blocks: S, heads: H, slots: N, inputs, width: M, gateWidth: G } = data;
  const seen = (i, j) => look(now.step, now.block, now.head, i, j);
  const column = (j) => (j < N ? String(j + 1) : inputs === 1 ? "input" : `in ${j - N + 1}`);
  const headName = (h) => (h < 0 ? "all heads, averaged" : `head ${h + 1}`);
  const where = () => `step ${now.step + 1}, block ${now.block + 1}, ${headName(now.head)}`;
  const strongest = (i) => range(R).reduce((best, j) => (seen(i, j) > seen(i, best) ? j : best), 0);

  // ---- figures; each says in words what it shows
  function drawHeads() {
    const across = H > 1 ? [-1, ...range(H)] : [0];
    const f = figure("heads");
    const perRow = Math.min(across.length, Math.max(2, Math.floor(room(f) / 110)));
    const each = Math.floor(room(f) / perRow);
    const cell = Math.max(2, Math.min(14, (each - 16) / R));
    const rowsOf = Math.ceil(across.length / perRow);
    const high = N * cell + 30;
    const { svg } = begin(f, S * rowsOf * high, `Attention at step ${now.step + 1}, every block and head.`);
    for (const s of range(S)) {
      across.forEach((h, place) => {
        const x = (place % perRow) * each + 2;
        const y = (s * rowsOf + Math.floor(place / perRow)) * high;
        const chosen = h === now.head && s === now.block;
        const group = add(svg, "g", { "data-head": h, "data-block": s, class: "pick" });
        const name = (S > 1 ? `block ${s + 1}, ` : "") + (h < 0 ? "average" : `head ${h + 1}`);
        label(group, x, y + 12, name, { fill: chosen ? inks().mark : inks().faint, "font-weight": chosen ? 700 : 400 });
        add(group, "rect", { x, y: y + 18, width: R * cell, height: N * cell, fill: inks().paper });
        heat(group, { x, y: y + 18, rows: N, columns: R, cellWidth: cell, cellHeight: cell, shade: amount,
          value: (i, j) => look(now.step, s, h, i, j) });
        add(group, "rect", { x, y: y + 18, width: R * cell, height: N * cell, fill: "none", "pointer-events": "all",
          stroke: chosen ? inks().mark : inks().line, "stroke-width": chosen ? 2.5 : 1 });
        group.addEventListener("click", () => choose({ head: h, block: s }));
      });
    }
  }

  function drawMatrix() {
    const f = figure("attention");
    const left = 46;
    const cell = Math.min(44, (room(f) - left - 2) / R);
    const high = Math.min(cell, 34);
    const words = range(N).map((i) => `slot ${i + 1} looks most at ${at(strongest(i))}, ${seen(i, strongest(i)).toFixed(2)}`);
    const { svg } = begin(f, 34 + N * high + 4, `Attention at ${where()}: ${words.join("; ")}.`);
    label(svg, left, 10, "looked at: slot, input");
    range(R).forEach((j) => label(svg, left + (j + 0.5) * cell, 26, column(j), { "text-anchor": "middle", fill: inks().ink }));
    range(N).forEach((i) => {
      label(svg, left - 6, 34 + (i + 0.5) * high + 4, `slot ${i + 1}`, { "text-anchor": "end", fill: inks().ink });
      range(R).forEach((j) => {
        const value = seen(i, j);
        const colour = amount(value);
        const box = { x: round(left + j * cell), y: round(34 + i * high), width: round(cell), height: round(high) };
        const rect = add(svg, "rect", { ...box, fill: colour, stroke: inks().paper, "stroke-width": 1,
          "data-row": i, "data-column": j, "data-value": value.toFixed(6) });
        add(rect, "title", {}, `slot ${i + 1} gives ${at(j)} ${value.toFixed(4)}`);
        if (cell >= 24) {
          label(svg, left + (j + 0.5) * cell, 34 + (i + 0.5) * high + 4, value.toFixed(2).replace(/^0/, ""),
            { "text-anchor": "middle", fill: on(colour), "pointer-events": "none" });
        }
      });
    });
  }
  const at = (j) => (j < N ? `slot ${j + 1}` : inputs === 1 ? "the input" : `input row ${j - N + 1}`);

  function drawArrows() {
    const f = figure("arrows");
    const gap = 30;
    const count = R;
    const shown = [];
    for (const i of range(N)) for (const j of range(R)) if (seen(i, j) >= now.least) shown.push([i, j, seen(i, j)]);
    shown.sort((a, b) => a[2] - b[2]);
    const words = shown.length === 1 ? "1 arrow" : `${shown.length} arrows`;
    const { svg, width } = begin(f, 24 + count * gap + 6, `${words} of at least ${now.least.toFixed(2)} at ${where()}.`);
    const [from, to] = [64, width - 56];
    const y = (n) => 24 + (n + 0.5) * gap;
    label(svg, 0, 12, "looked at");
    label(svg, width, 12, "looks", { "text-anchor": "end" });
    const colours = { own: inks().faint, slot: series(0).colour, input: series(1).colour };
    const defs = add(svg, "defs");
    for (const [kind, colour] of Object.entries(colours)) {
      const marker = add(defs, "marker", { id: `tip-${kind}`, viewBox: "0 0 6 6", refX: 5, refY: 3, markerWidth: 9,
        markerHeight: 9, markerUnits: "userSpaceOnUse", orient: "auto" });
      add(marker, "path", { d: "M0 0L6 3L0 6z", fill: colour });
    }
    for (const [i, j, value] of shown) {
      const kind = j >= N ? "input" : j === i ? "own" : "slot";
      const middle = (from + to) / 2;
      const d = `M${from} ${y(j)}C${middle} ${y(j)} ${middle} ${y(i)} ${to - 2} ${y(i)}`;
      const path = add(svg, "path", { d, fill: "none", stroke: colours[kind], "stroke-width": round(0.8 + 5 * value),
        "stroke-opacity": round(0.35 + 0.65 * value), "marker-end": `url(#tip-${kind})`, "data-from": j, "data-to": i,
        ...(kind === "own" ? { "stroke-dasharray": "3 3" } : {}) });
      add(path, "title", {}, `slot ${i + 1} gives ${at(j)} ${value.toFixed(4)}`);
    }
    if (shown.length === 0) label(svg, (from + to) / 2, y(0) + 4, `no weight of at least ${now.least.toFixed(2)}`, { "text-anchor": "middle" });
    range(R).forEach((j) => label(svg, from - 6, y(j) + 4, j < N ? `slot ${j + 1}` : column(j),
      { "text-anchor": "end", fill: j < N ? inks().ink : colours.input }));
    range(N).forEach((i) => label(svg, to + 6, y(i) + 4, `slot ${i + 1}`, { fill: inks().ink }));
    legend(svg, 24 + count * gap + 6, [
      { name: "looks at another slot", stroke: colours.slot },
      { name: "at itself", stroke: colours.own, "stroke-dasharray": "3 3" },
      { name: "at the input", stroke: colours.input },
    ]);
  }

  function drawGates() {
    if (!gates.input) return;
    const f = figure("gates");
    const rows = range(N).map((i) => `slot ${i + 1}: input ${gateMean("input", now.step, i).toFixed(2)}, forget ${gateMean("forget", now.step, i).toFixed(2)}`);
    const { svg, width } = begin(f, 30 + N * 34 + 4, `Gates at step ${now.step + 1}. ${rows.join("; ")}.`);
    const [left, right] = [46, 40];
    const x = (value) => left + value * (width - left - right);
    for (const mark of [0, 0.5, 1]) {
      label(svg, x(mark), 12, String(mark), { "text-anchor": "middle" });
      add(svg, "line", { x1: x(mark), x2: x(mark), y1: 18, y2: 30 + N * 34, stroke: inks().line });
    }
    range(N).forEach((i) => {
      label(svg, left - 6, 30 + i * 34 + 18, `slot ${i + 1}`, { "text-anchor": "end", fill: inks().ink });
      ["input", "forget"].forEach((kind, k) => {
        const values = range(G).map((n) => gate(kind, now.step, i, n));
        const average = mean(values);
        const y = 30 + i * 34 + k * 14;
        const bar = add(svg, "rect", { x: left, y, width: round(x(average) - left), height: 11, fill: series(k).colour,
          "data-gate": kind, "data-slot": i, "data-value": average.toFixed(6) });
        add(bar, "title", {}, `slot ${i + 1}, ${kind} gate ${average.toFixed(4)}`);
        if (G > 1) {
          const [low, high] = [Math.min(...values), Math.max(...values)];
          add(svg, "line", { x1: x(low), x2: x(high), y1: y + 5.5, y2: y + 5.5, stroke: inks().ink, "stroke-width": 1 });
          for (const end of [low, high]) {
            add(svg, "line", { x1: x(end), x2: x(end), y1: y + 2.5, y2: y + 8.5, stroke: inks().ink, "stroke-width": 1 });
          }
        }
        label(svg, width - right + 8, y + 9, average.toFixed(2), { fill: inks().ink });
      });
    });
    legend(svg, 30 + N * 34 + 4, ["input gate", "forget gate"].map((name, k) => ({ name, stroke: series(k).colour })));
  }

  const VIEWS = {
    memory: { most: mostHeld, value: (i, k) => content(now.step, i, k), columns: M, shade: sign },
    change: { most: mostChanged, value: (i, k) => change(now.step, i, k), columns: M, shade: sign },
    "input gate": { most: 1, value: (i, k) => gate("input", now.step, i, k), columns: G, shade: amount },
    "forget gate": { most: 1, value: (i, k) => gate("forget", now.step, i, k), columns: G, shade: amount },
  };
  function drawMemory() {
    const f = figure("memory");
    const view = VIEWS[now.view];
    const [left, high] = [46, 22];
    const unknown = now.view === "change" && !known(now.step);
    const words = unknown ? "not known: the memory before the first step was not given"
      : range(N).map((i) => `slot ${i + 1} has length ${length(range(M).map((k) => content(now.step, i, k))).toFixed(2)}`
        + (known(now.step) ? ` and moved by ${movedAll[now.step][i].toFixed(2)}` : "")).join("; ");
    const { svg, width } = begin(f, N * high + 34, `The ${now.view} at step ${now.step + 1}: ${words}.`);
    const cell = (width - left) / view.columns;
    range(N).forEach((i) => label(svg, left - 6, (i + 0.5) * high + 4, `slot ${i + 1}`, { "text-anchor": "end", fill: inks().ink }));
    if (unknown) {
      label(svg, left, 20, "the memory before the first step was not given");
      return;
    }
    const map = heat(svg, { x: left, y: 0, rows: N, columns: view.columns, cellWidth: cell, cellHeight: high,
      shade: view.shade, value: (i, k) => view.value(i, k) / view.most });
    range(N + 1).forEach((i) => add(svg, "line", { x1: left, x2: width, y1: i * high, y2: i * high, stroke: inks().paper }));
    const signed = view.shade === sign;
    const shades = range(41).map((n) => (signed ? n / 20 - 1 : n / 40));
    shades.forEach((share, n) => add(svg, "rect", { x: left + 4 * n, y: N * high + 8, width: 4.2, height: 8, fill: view.shade(share) }));
    const end = view.most.toPrecision(3);
    label(svg, left, N * high + 29, signed ? `-${end}` : "0", {});
    if (signed) label(svg, left + 82, N * high + 29, "0", { "text-anchor": "middle" });
    label(svg, left + 164, N * high + 29, end, { "text-anchor": "end" });
    const read = $("memory-number");
    map.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const k = Math.min(view.columns - 1, Math.max(0, Math.floor((event.clientX - box.left - left) / cell)));
      const i = Math.min(N - 1, Math.max(0, Math.floor((event.clientY - box.top) / high)));
      read.textContent = `slot ${i + 1}, number ${k + 1}: ${view.value(i, k).toFixed(4)}`;
    });
    map.addEventListener("pointerleave", () => { read.textContent = ""; });
  }

  const timeWords = () => `Attention to the input, gates and change of every slot at every step. Step ${now.step + 1} is marked.`;
  function drawTime() {
    const f = figure("time");
    const strips = [
      ["attention to the input", (t, i) => range(inputs).reduce((sum, n) => sum + look(t, now.block, now.head, i, N + n), 0), "0 to 1"],
      ...(gates.input ? [["input gate, mean", (t, i) => gateMean("input", t, i), "0 to 1"],
        ["forget gate, mean", (t, i) => gateMean("forget", t, i), "0 to 1"]] : []),
      ["change of the memory", (t, i) => movedAll[t][i] / mostMoved, `0 to ${mostMoved.toPrecision(3)}`],
    ];
    const high = Math.max(5, Math.min(12, 90 / N));
    const each = N * high + 24;
    const { svg, width } = begin(f, strips.length * each + 18, timeWords());
    strips.forEach(([name, value, scale], n) => {
      label(svg, LEFT, n * each + 13, `${name} (${scale})`, { fill: inks().ink });
      heat(svg, { x: LEFT, y: n * each + 18, rows: N, columns: T, cellWidth: stepWidth(width), cellHeight: high, shade: amount,
        value: (i, t) => value(t, i) });
      range(N).filter((i) => high >= 9 || i === 0 || i === N - 1).forEach((i) =>
        label(svg, LEFT - 6, n * each + 18 + (i + 0.5) * high + 4, high >= 9 ? `slot ${i + 1}` : String(i + 1), { "text-anchor": "end", "font-size": 10 }));
    });
    timeAxis(svg, width, strips.length * each + 12);
    cursor(svg, width, strips.map((_, n) => [n * each + 17, N * high + 2]));
  }
  // Only the cursor moves with the step; redrawing the strips would cost too much in long stories.
  function moveCursor() {
    const cell = stepWidth(figure("time").querySelector(".drawing svg").viewBox.baseVal.width);
    for (const mark of figure("time").querySelectorAll(".cursor")) mark.setAttribute("x", round(LEFT + now.step * cell));
    figure("time").querySelector(".drawing svg").setAttribute("aria-label", timeWords());
  }

  // ---- words
  function fill(table, head, rows) {
    const cells = (values, tag) => values.map((value) => Object.assign(document.createElement(tag), { textContent: value }));
    const row = (values) => { const tr = document.createElement("tr"); tr.append(...values); return tr; };
    table.tHead.replaceChildren(row(cells(head, "th")));
    table.tBodies[0].replaceChildren(...rows.map(([first, ...rest]) => row([...cells([first], "th"), ...cells(rest, "td")])));
  }
  function writeNumbers() {
    if (!$("numbers").open) return;
    fill($("attention-numbers"), ["slot", ...range(R).map((j) => (j < N ? `slot ${j + 1}` : column(j)))],
      range(N).map((i) => [`slot ${i + 1}`, ...range(R).map((j) => seen(i, j).toFixed(4))]));
    const gated = gates.input ? ["input gate", "forget gate"] : [];
    fill($("slot-numbers"), ["slot", ...gated, "length", "change"], range(N).map((i) => [`slot ${i + 1}`,
      ...(gates.input ? ["input", "forget"].map((kind) => gateMean(kind, now.step, i).toFixed(4)) : []),
      length(range(M).map((k) => content(now.step, i, k))).toFixed(4), known(now.step) ? movedAll[now.step][i].toFixed(4) : "not known"]));
  }
  function told() {
    const i = range(N).reduce((best, n) => (movedAll[now.step][n] > movedAll[now.step][best] ? n : best), 0);
    return known(now.step) ? ` Slot ${i + 1} changed most, by ${movedAll[now.step][i].toFixed(2)}.` : "";
  }

  // ---- choosing
  for (const button of document.querySelectorAll("[data-head]:is(button)")) button.addEventListener("click", () => choose({ head: Number(button.dataset.head) }));
  for (const button of document.querySelectorAll("button[data-block]")) button.addEventListener("click", () => choose({ block: Number(button.dataset.block) }));
  for (const button of document.querySelectorAll("button[data-view]")) button.addEventListener("click", () => choose({ view: button.dataset.view }));
  $("least").addEventListener("input", () => {
    $("least-value").textContent = Number($("least").value).toFixed(2);
    choose({ least: Number($("least").value) });
  });
  $("numbers").addEventListener("toggle", writeNumbers);
  pickSteps(figure("time").querySelector(".drawing svg"));
  now.head = from("head", 0, H) ?? (H > 1 ? -1 : 0);
  now.block = from("block", 1, S) ?? S - 1;
  now.view = "memory";
  now.least = Number($("least").value);
  show({
    all() {
      drawTime();
      press("heads-choice", "head", now.head);
      press("blocks-choice", "block", now.block);
      press("views-choice", "view", now.view);
    },
    step() {
      drawHeads(); drawMatrix(); drawArrows(); drawGates(); drawMemory(); moveCursor(); writeNumbers();
    },
    told,
  });
})();
