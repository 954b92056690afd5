// Colours and shapes. All text becomes text nodes, so none of it is ever read as markup.

const CIVIDIS = [
  [0, 34, 78], [18, 53, 112], [59, 73, 108], [87, 93, 109], [112, 113, 115],
  [138, 134, 120], [165, 156, 116], [195, 179, 105], [225, 204, 85], [254, 232, 56],
];
const DIVERGING = [[0, 114, 178], [245, 245, 245], [213, 94, 0]];

function mixed(stops, share) {
  const at = Math.min(1, Math.max(0, share)) * (stops.length - 1);
  const from = Math.min(stops.length - 2, Math.floor(at));
  return stops[from].map((part, i) => Math.round(part + (stops[from + 1][i] - part) * (at - from)));
}

function css(rgb) {
  return "rgb(" + rgb.join(",") + ")";
}

// Black or white, whichever stands out more.
function inkOn(rgb) {
  const [r, g, b] = rgb.map((part) => {
    const c = part / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}

// A ground in a colour, and text that stands out on it; null leaves both.
function paint(box, colour) {
  if (!colour) return;
  box.style.background = css(colour);
  box.style.color = inkOn(colour);
}

function numeral(value, digits) {
  if (Number.isNaN(value) || value === undefined || value === null) return "–";
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

function scaled(value, low, high) {
  return high > low ? (value - low) / (high - low) : value > high ? 1 : 0.5;
}

function made(tag, text, className) {
  const found = document.createElement(tag);
  if (text !== undefined) found.textContent = text;
  if (className) found.className = className;
  return found;
}

function shape(tag, attributes, text) {
  const found = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, value);
  if (text !== undefined) found.textContent = text;
  return found;
}

function drawScale(id, stops) {
  const canvas = element(id);
  const pen = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x++) {
    pen.fillStyle = css(mixed(stops, x / (canvas.width - 1)));
    pen.fillRect(x, 0, 1, canvas.height);
  }
}

// A label of at most so many characters.
function cut(text, most) {
  const signs = [...text];
  return signs.length > most ? signs.slice(0, most - 1).join("") + "…" : text;
}

// A symmetric matrix; the chosen row and column stand between lines.
function drawMatrix(canvas, cell, count, value, low, high, chosen) {
  const ratio = window.devicePixelRatio || 1;
  const side = cell * count;
  canvas.width = canvas.height = Math.ceil(side * ratio);
  canvas.style.width = side + "px";
  canvas.dataset.cell = cell;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  for (let i = 0; i < count; i++) {
    for (let j = 0; j < count; j++) {
      pen.fillStyle = css(mixed(CIVIDIS, scaled(value(i, j), low, high)));
      pen.fillRect(j * cell, i * cell, cell - (cell > 6 ? 1 : 0), cell - (cell > 6 ? 1 : 0));
    }
  }
  pen.strokeStyle = "#d55e00";
  pen.lineWidth = 2;
  pen.strokeRect(1, chosen * cell, side - 2, cell);
}

// Pixels of the longest label.
function widest(canvas, labels) {
  const pen = canvas.getContext("2d");
  pen.font = "bold 11px " + getComputedStyle(canvas).fontFamily;
  return Math.ceil(Math.max(...labels.map((text) => pen.measureText(text).width)));
}

// Labels left of a matrix and, turned, above it: all where there is room, else every so many.
function drawLabels(room, cell, labels, chosen) {
  const size = room + cell * labels.length;
  const found = shape("svg", { width: size, height: size, "aria-hidden": "true" });
  const every = Math.ceil(13 / cell);
  labels.forEach((text, token) => {
    if (token !== chosen && (token % every || Math.abs(token - chosen) < every)) return;
    const middle = room + (token + 0.5) * cell;
    const own = token === chosen ? "label chosen" : "label";
    found.append(shape("text", { x: room - 5, y: middle + 4, "text-anchor": "end", class: own, "data-token": token }, text));
    found.append(shape("text", { x: middle + 4, y: room - 5, transform: `rotate(-90 ${middle + 4} ${room - 5})`, class: own }, text));
  });
  return found;
}

// Layers upwards, heads to the right; only edited heads have a colour.
function drawHeads(about, colour, label, layer, chosen, choose) {
  const wide = Math.max(7, Math.min(30, Math.floor(330 / about.heads)));
  const tall = Math.max(7, Math.min(30, Math.floor(420 / about.layers)));
  const left = 44;
  const bottom = tall * about.layers;
  const width = Math.max(left + wide * about.heads + 4, 120);
  const height = bottom + 34;
  const found = shape("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Map of layers and heads" });
  const y = (number) => (about.layers - 1 - number) * tall;
  const [everyLayer, everyHead] = [Math.ceil(12 / tall), Math.ceil(18 / wide)];
  for (let number = 0; number < about.layers; number++) {
    for (let head = 0; head < about.heads; head++) {
      found.append(shape("rect", { x: left + head * wide + 0.5, y: y(number) + 0.5, width: wide - 1, height: tall - 1, class: "empty" }));
    }
    if (number % everyLayer === 0) found.append(shape("text", { x: left - 6, y: y(number) + tall / 2 + 4, "text-anchor": "end" }, String(number)));
  }
  for (let head = 0; head < about.heads; head += everyHead) {
    found.append(shape("text", { x: left + (head + 0.5) * wide, y: bottom + 14, "text-anchor": "middle" }, String(head)));
  }
  found.append(shape("text", { x: left + (wide * about.heads) / 2, y: height - 4, "text-anchor": "middle" }, "head"));
  found.append(shape("text", { x: 10, y: bottom / 2, "text-anchor": "middle", transform: `rotate(-90 10 ${bottom / 2})` }, "layer"));
  about.edited.forEach(([at, head], row) => {
    const box = shape("rect", { x: left + head * wide + 1, y: y(at) + 1, width: wide - 2, height: tall - 2, class: "head" + (row === chosen ? " chosen" : ""), fill: colour(row), "data-row": row });
    box.append(shape("title", {}, label(row)));
    box.addEventListener("click", () => choose(at, row));
    found.append(box);
  });
  found.append(shape("rect", { x: left, y: y(layer), width: wide * about.heads, height: tall, class: "here" }));
  return found;
}

// The least of 1, 2 and 5 times a power of ten that is no less than a length.
function roundStep(length) {
  const power = 10 ** Math.floor(Math.log10(length));
  return [1, 2, 5, 10].find((times) => times * power >= length * 0.999) * power;
}

// Curves over α with a line at the α shown.
function drawCurves(alphas, curves, chosen, names) {
  const [width, height, left, bottom, top, right] = [380, 220, 62, 38, 12, 12];
  const values = curves.flat().filter(Number.isFinite);
  const high = Math.max(0, ...values);
  const least = Math.min(high - 0.1, ...values);
  const step = roundStep((high - least) / 4);
  const low = Math.floor(least / step) * step;
  const span = alphas[alphas.length - 1] - alphas[0];
  const x = (alpha) => left + scaled(alpha, alphas[0], alphas[0] + span) * (width - left - right);
  const y = (value) => top + (1 - scaled(value, low, high)) * (height - top - bottom);
  const found = shape("svg", { viewBox: `0 0 ${width} ${height}`, class: "curves", role: "img", "aria-label": names.join(" and ") });
  for (let value = low; value <= high + step / 2; value += step) {
    found.append(shape("line", { x1: left, x2: width - right, y1: y(value), y2: y(value), class: "grid" }));
    found.append(shape("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, numeral(value, step < 0.1 ? 2 : step < 1 ? 1 : 0)));
  }
  let last = -Infinity;
  alphas.forEach((alpha) => {
    if (x(alpha) - last < 26) return;
    last = x(alpha);
    found.append(shape("text", { x: x(alpha), y: height - bottom + 16, "text-anchor": "middle" }, String(alpha)));
  });
  found.append(shape("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, "factor α"));
  found.append(shape("text", { x: 12, y: (height - bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(height - bottom) / 2})` }, "nats"));
  found.append(shape("line", { x1: x(alphas[chosen]), x2: x(alphas[chosen]), y1: top, y2: height - bottom, class: "now" }));
  curves.forEach((curve, number) => {
    const points = alphas.map((alpha, i) => [x(alpha), y(curve[i])]);
    found.append(shape("polyline", { points: points.map((p) => p.join(",")).join(" "), class: "curve c" + number }));
    points.forEach(([cx, cy], i) => {
      const dot = shape(number ? "rect" : "circle", number ? { x: cx - 3.5, y: cy - 3.5, width: 7, height: 7, class: "dot c1" } : { cx, cy, r: 4, class: "dot c0" });
      dot.append(shape("title", {}, `${names[number]}, α ${alphas[i]}: ${numeral(curve[i], 3)} nats`));
      found.append(dot);
    });
  });
  return found;
}
