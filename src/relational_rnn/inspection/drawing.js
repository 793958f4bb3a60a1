// What the figures of an inspection have in common: colours, elements, heat maps. Defines `drawing`.
const drawing = (() => {
  "use strict";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  // Lightness alone carries a scale, and blue against orange a sign: both survive every common colour blindness.
  const SCALES = {
    light: {
      amount: ["#f4f8fc", "#c6dbef", "#6baed6", "#2171b5", "#08306b"],
      sign: ["#7f3300", "#e08b4f", "#f5f5f5", "#5ea3d0", "#08478a"],
    },
    dark: {
      amount: ["#1f2228", "#1d3f63", "#2f74b0", "#7cbbea", "#e6f4ff"],
      sign: ["#ffc196", "#b8601f", "#232327", "#2f7fbf", "#a5d8ff"],
    },
  };
  const INKS = {
    light: { ink: "#1b1b1f", faint: "#5c5c66", line: "#d0d0d8", paper: "#ffffff", mark: "#b04a00" },
    dark: { ink: "#e6e6ea", faint: "#a8a8b2", line: "#3f3f48", paper: "#17171a", mark: "#ff9c55" },
  };
  // After Okabe and Ito, each with a dash of its own; every two stay apart with each kind of colour blindness.
  const SERIES = {
    light: ["#0072b2", "#d55e00", "#009e73", "#b3568f", "#5b4100", "#3a3a3a"],
    dark: ["#56b4e9", "#ff9c55", "#2fd0a0", "#e39ac8", "#f0c040", "#9fd8f5"],
  };
  const DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 4", "1 3"];
  const theme = () => (dark.matches ? "dark" : "light");
  const inks = () => INKS[theme()];
  const series = (i) => ({ colour: SERIES[theme()][i % 6], dash: DASHES[i % 6] });

  function mix(stops, share) {
    const place = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
    const i = Math.min(Math.floor(place), stops.length - 2);
    const part = (hex, k) => parseInt(hex.slice(1 + 2 * k, 3 + 2 * k), 16);
    const blend = (k) => Math.round(part(stops[i], k) + (place - i) * (part(stops[i + 1], k) - part(stops[i], k)));
    return "#" + [0, 1, 2].map((k) => blend(k).toString(16).padStart(2, "0")).join("");
  }
  const amount = (share) => mix(SCALES[theme()].amount, share);
  const sign = (share) => mix(SCALES[theme()].sign, (share + 1) / 2);
  // Black or white, whichever is easier to read on a colour.
  function on(colour) {
    const light = [1, 3, 5].map((k) => parseInt(colour.slice(k, k + 2), 16) / 255).map((v) => v ** 2.2);
    return 0.21 * light[0] + 0.72 * light[1] + 0.07 * light[2] > 0.2 ? "#000000" : "#ffffff";
  }

  function add(parent, tag, attributes = {}, text = undefined) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  }
  const label = (parent, x, y, text, more = {}) =>
    add(parent, "text", { x, y, "font-size": 11, fill: inks().faint, ...more }, text);

  const room = (figure) => Math.max(260, Math.floor(figure.querySelector(".drawing").clientWidth));
  // An empty drawing in a figure, as wide as the page gives it, so that letters keep their size.
  function begin(figure, height, spoken) {
    const svg = figure.querySelector(".drawing svg");
    const width = room(figure);
    svg.replaceChildren();
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    svg.setAttribute("aria-label", spoken);
    return { svg, width };
  }

  // One path for each of 64 shades, however many cells there are.
  function heat(parent, { x, y, rows, columns, cellWidth, cellHeight, shade, value }) {
    const group = add(parent, "g", { "shape-rendering": "crispEdges" });
    const paths = new Map();
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const level = Math.round(63 * Math.min(Math.max(value(row, column), -1), 1)) / 63;
        const cell = `M${round(x + column * cellWidth)} ${round(y + row * cellHeight)}h${round(cellWidth)}`;
        paths.set(level, (paths.get(level) || "") + `${cell}v${round(cellHeight)}h${-round(cellWidth)}z`);
      }
    }
    for (const [level, d] of paths) add(group, "path", { d, fill: shade(level) });
    return group;
  }
  const round = (value) => Math.round(100 * value) / 100;

  // What the page says beside a figure, for the file that it is saved as: below the drawing, and hidden on the page.
  function legend(svg, y, entries) {
    const width = svg.viewBox.baseVal.width;
    const group = add(svg, "g", { style: "display:none" });
    let [x, line] = [0, 0];
    for (const { name: full, ...stroke } of entries) {
      const name = full.length > 50 ? `${full.slice(0, 49)}…` : full;
      const room = 36 + 6.5 * name.length;
      if (x > 0 && x + room > width) [x, line] = [0, line + 1];
      const middle = y + 9 + 18 * line;
      add(group, "line", { x1: x + 2, x2: x + 22, y1: middle, y2: middle, "stroke-width": 3, ...stroke });
      label(group, x + 28, middle + 4, name, { fill: inks().ink });
      x += room + 8;
    }
    group.setAttribute("data-legend", 18 * (line + 1) + 4);
  }

  // Numbers as Python packed them: 16 bits each, low byte first.
  function unpack(packed) {
    if (!packed) return null;
    const bytes = Uint8Array.from(atob(packed.data), (letter) => letter.charCodeAt(0));
    const values = new Float64Array(bytes.length / 2);
    for (let i = 0; i < values.length; i++) {
      values[i] = packed.low + packed.step * (bytes[2 * i] + 256 * bytes[2 * i + 1]);
    }
    return values;
  }
  return { dark, inks, series, amount, sign, on, add, label, room, begin, heat, legend, round, unpack };
})();
