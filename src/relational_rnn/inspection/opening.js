// The figure that a story's page opens on: a row for every sentence, panels of columns, and where the question looks.
(() => {
  "use strict";
  const { inks, amount, sign, on, add, label, room, begin, round, unpack } = drawing;
  const { data, T, now, $, figure, lines, range, choose, show } = steps;
  const { named } = data.opening;
  const panels = data.opening.panels.map((panel) => ({ ...panel, values: unpack(panel.values), looks: unpack(panel.looks) }));
  const GAP = 14; // between panels
  const LEAST = 15; // pixels of a column below which panels stand one below the other
  const pen = document.createElement("canvas").getContext("2d");
  const wide = (text, bold) => { pen.font = `${bold ? "bold " : ""}11px system-ui, sans-serif`; return pen.measureText(text).width; };
  const value = (panel, t, c) => panel.values[((panel.moving ? now.step * T : 0) + t) * panel.columns + c];

  // A text in at most so many lines that fit a width; what is left over ends in an ellipsis.
  function wrap(text, width, most, bold = false) {
    const rows = [""];
    for (const word of text.split(" ")) {
      const longer = rows.at(-1) ? `${rows.at(-1)} ${word}` : word;
      if (!rows.at(-1) || wide(longer, bold) <= width || rows.length === most) rows[rows.length - 1] = longer;
      else rows.push(word);
    }
    return rows.map((row) => {
      let kept = row;
      while (kept && wide(kept === row ? row : `${kept}…`, bold) > width) kept = kept.slice(0, -1);
      return kept === row ? row : `${kept}…`;
    });
  }

  // Panels that stand side by side, and the width of a column there.
  function bands(width) {
    const columns = (some) => some.reduce((sum, panel) => sum + panel.columns, 0);
    const cell = (some) => Math.min(40, (width - GAP * (some.length - 1)) / columns(some));
    const found = [];
    for (const panel of panels) {
      const last = found.at(-1);
      if (last && cell([...last, panel]) >= LEAST) last.push(panel);
      else found.push([panel]);
    }
    return found.map((some) => ({ some, cell: cell(some) }));
  }

  function heading(svg, x, y, panel, cell) {
    wrap(panel.name, panel.columns * cell, 3).forEach((row, n) => label(svg, x, y + 13 * n, row, { fill: inks().ink }));
  }

  function drawOpening() {
    const f = figure("opening");
    const width = room(f);
    const longest = Math.max(...data.tokens.map((token) => wide(lines(token), true)));
    const left = Math.min(34 + longest, 0.42 * width);
    const most = T > 24 ? 1 : Math.max(...data.tokens.map((token) => wrap(lines(token), left - 34, 3, true).length));
    const high = T <= 24 ? Math.max(22, 4 + 12 * most) : Math.max(2, 480 / T);
    const shown = bands(width - left - 2);
    let bottom = 0;
    for (const band of shown) {
      band.title = 13 * Math.max(...band.some.map((panel) => wrap(panel.name, panel.columns * band.cell, 3).length));
      band.y = bottom + band.title + 20;
      band.looks = Math.max(...band.some.map((panel) => (panel.looks ? panel.looks.length / T / panel.columns : 0)));
      bottom = band.y + T * high + (band.looks ? 8 + 22 * band.looks : 0) + 16;
    }
    const { svg } = begin(f, bottom + 22, spoken());
    for (const { some, cell, y, title, looks } of shown) {
      const all = add(svg, "g", { class: "pick" });
      names(all, y, left, high, most);
      let x = left;
      for (const panel of some) {
        heading(svg, x, y - title - 8, panel, cell);
        const every = cell >= 12 ? 1 : Math.ceil(12 / cell);
        range(panel.columns).filter((c) => c % every === 0).forEach((c) =>
          label(svg, x + (c + 0.5) * cell, y - 5, String(c + 1), { "text-anchor": "middle" }));
        cells(all, panel, x, y, cell, high);
        if (panel.looks) lookRows(svg, panel, x, y + T * high + 8, cell);
        x += panel.columns * cell + GAP;
      }
      range(looks).forEach((n) =>
        label(svg, left - 6, y + T * high + 8 + 22 * n + 15, `look ${n + 1}`, { "text-anchor": "end", fill: inks().ink }));
      const from = high < 11 ? left : 1; // a thin frame would strike out the words
      add(svg, "rect", { x: from, y: round(y + now.step * high), width: round(x - GAP - from), height: round(Math.max(high, 3)), rx: 2,
        fill: "none", stroke: inks().mark, "stroke-width": 2, class: "cursor", "pointer-events": "none" });
      const under = add(svg, "rect", { x: 0, y, width: round(x - GAP), height: round(T * high), fill: "none", "pointer-events": "all" });
      all.prepend(under);
      all.addEventListener("click", (event) => {
        const t = Math.floor((event.clientY - under.getBoundingClientRect().top) / high);
        choose({ step: Math.min(T - 1, Math.max(0, t)) });
      });
    }
    scales(svg, bottom);
  }

  function names(svg, y, left, high, most) {
    const every = high >= 11 ? 1 : Math.ceil(11 / high);
    for (const t of range(T)) {
      if (t !== now.step && (t % every !== 0 || Math.abs(t - now.step) * high < 11)) continue;
      const ink = t === now.step ? { fill: inks().mark, "font-weight": 700 } : { fill: t < now.step ? inks().ink : inks().faint };
      const middle = y + (t + 0.5) * high;
      const rows = wrap(lines(data.tokens[t]), left - 34, most, t === now.step);
      label(svg, 20, middle + 4, String(t + 1), { "text-anchor": "end" });
      rows.forEach((row, n) => label(svg, 26, middle + 4 + 12 * (n - (rows.length - 1) / 2), row, ink));
    }
  }

  function cells(svg, panel, x, y, cell, high) {
    const top = range(panel.columns).map((c) => (panel.framed ? range(T).reduce((best, t) =>
      (Math.abs(value(panel, t, c)) > Math.abs(value(panel, best, c)) ? t : best), 0) : -1));
    const group = add(svg, "g", { "data-panel": panel.name });
    for (const t of range(T)) {
      for (const c of range(panel.columns)) {
        const found = value(panel, t, c);
        const colour = panel.signed ? sign(found / panel.most) : amount(found / panel.most);
        box(group, { x: x + c * cell, y: y + t * high, width: cell, height: high }, found, colour, t > now.step,
          { "data-row": t, "data-column": c }, panel.signed, T <= 60 ? `sentence ${t + 1}, ${panel.name} ${c + 1}` : "");
      }
    }
    top.forEach((t, c) => t >= 0 && value(panel, t, c) !== 0 && frame(group, x + c * cell, y + t * high, cell, high));
  }

  function lookRows(svg, panel, x, y, cell) {
    const count = panel.looks.length / T / panel.columns;
    const group = add(svg, "g", { "data-panel": "looks" });
    for (const n of range(count)) {
      const row = range(panel.columns).map((c) => panel.looks[(now.step * count + n) * panel.columns + c]);
      row.forEach((found, c) => box(group, { x: x + c * cell, y: y + 22 * n, width: cell, height: 22 }, found, amount(found), false,
        { "data-row": n, "data-column": c }, false, `look ${n + 1} at ${c + 1}`));
      frame(group, x + row.indexOf(Math.max(...row)) * cell, y + 22 * n, cell, 22);
    }
  }

  // A cell, with its number where there is room; sentences that the chosen step has not yet read are pale.
  function box(group, place, found, colour, later, more, signed, name) {
    const size = Object.fromEntries(Object.entries(place).map(([name, number]) => [name, round(number)]));
    const rect = add(group, "rect", { ...size, fill: colour, "data-value": found.toFixed(6), ...more,
      ...(place.height > 6 ? { stroke: inks().paper, "stroke-width": 1 } : {}), ...(later ? { opacity: 0.3 } : {}) });
    if (name) add(rect, "title", {}, `${name}: ${found.toFixed(4)}`);
    const words = found.toFixed(2).replace("0.", ".").replace("-", "−");
    if (place.width < (signed ? 28 : 23) || place.height < 14 || later || /^−?\.00$/.test(words)) return;
    label(group, place.x + place.width / 2, place.y + place.height / 2 + 4, words,
      { "text-anchor": "middle", fill: on(colour), "pointer-events": "none", "font-size": place.width < 30 ? 9.5 : 11 });
  }
  const frame = (group, x, y, width, height) => add(group, "rect", { x: round(x + 1), y: round(y + 1), width: round(width - 2),
    height: round(Math.max(height - 2, 1)), fill: "none", stroke: inks().mark, "stroke-width": 2, class: "most" });

  function scales(svg, y) {
    let x = 26;
    const kinds = new Map(panels.map((panel) => [`${panel.most} ${panel.signed}`, panel]));
    for (const { most, signed } of kinds.values()) {
      const shade = signed ? (n) => sign(n / 20 - 1) : (n) => amount(n / 40);
      range(41).forEach((n) => add(svg, "rect", { x: x + 2 * n, y: y, width: 2.2, height: 8, fill: shade(n) }));
      label(svg, x, y + 19, signed ? `−${most}` : "0");
      if (signed) label(svg, x + 41, y + 19, "0", { "text-anchor": "middle" });
      label(svg, x + 82, y + 19, String(most), { "text-anchor": "end" });
      x += 108;
    }
  }

  const told = () => named[now.step].map(([name, t, share]) => `${name}: ${lines(data.tokens[t])} (${share.toFixed(2)})`).join("; ");
  const spoken = () => `After sentence ${now.step + 1}: ${told()}.`;
  function writeNamed() {
    $("named").tBodies[0].replaceChildren(...named[now.step].map(([name, t, share, note]) => {
      const row = document.createElement("tr");
      const cell = (tag, text, kind) => Object.assign(document.createElement(tag), { textContent: text, className: kind });
      const track = Object.assign(document.createElement("span"), { className: "track" });
      const bar = Object.assign(document.createElement("span"), { className: share < 0 ? "bar less" : "bar more" });
      bar.style.width = `${Math.min(100, 100 * Math.abs(share)).toFixed(1)}%`;
      track.append(bar);
      const number = cell("td", "", "amount");
      number.append(track, share.toFixed(2));
      row.append(cell("th", name, ""), cell("td", `${t + 1}  ${data.tokens[t]}`, "words long"), number);
      if ($("named").tHead.rows[0].cells.length > 3) row.append(cell("td", note, "words note"));
      row.children[0].scope = "row";
      return row;
    }));
  }

  // The lines first: the room that they leave is the figure's.
  show({ step() { writeNamed(); drawOpening(); } });
})();
