// What is shown, and its panels.

const whole = parsed("about");
let about = { ...whole, ...whole.edits[0] };
const now = { answer: 0, edit: 0, token: 0, row: 0, layer: about.edited.length ? about.edited[0][0] : 0, depth: 0, alpha: ownAlpha(0), beta: about.beta, quantity: usual(), scope: "all", stretch: "answer", pass: "1" };
let shown = null;
let every = [];

function ownAlpha(edit) {
  return whole.edits[edit].alphas.indexOf(whole.edits[edit].alpha);
}

// Those without kinds are of all edits.
const QUANTITIES = {
  s: { name: "strength s", low: 1, high: 2, perHead: true, kinds: ["heads"] },
  risk: { name: "misalignment p̂", low: 0, high: 1, perHead: true, kinds: ["heads"] },
  doubt: { name: "uncertainty u", low: 0, high: 1, kinds: ["heads"] },
  change: { name: "change α·σ·s along θ (units of z)", perHead: true, kinds: ["heads"] },
  gate: { name: "gate", kinds: ["states"] },
  moved: { name: "how far states moved (norm)", kinds: ["heads", "states"] },
  nats: { name: "log-probability (nats)" },
  gain: { name: "log-probability over α = 0 (nats)", diverging: true },
};

function rowsShown() {
  const all = about.edited.map((_, row) => row);
  return now.scope === "all" ? all : all.filter((row) => about.edited[row][0] === now.layer);
}

// s = 1 + β·p̂ + (1 − β)·u, where the edit acts, without the terms that it is without.
function strength(token, row) {
  if (!shown.reached[token]) return NaN;
  const [risky, doubtful] = about.parts;
  return 1 + (risky ? now.beta * shown.risk(now.alpha, token, row) : 0) + (doubtful ? (1 - now.beta) * shown.doubt(now.alpha, token, about.edited[row][0]) : 0);
}

function formula() {
  const [risky, doubtful] = about.parts;
  if (!risky && !doubtful) return "This edit's strength is constant: s = 1";
  return `s = 1${risky ? ` + ${numeral(now.beta, 2)}·p̂` : ""}${doubtful ? ` + ${numeral(1 - now.beta, 2)}·u` : ""}`;
}

function change(token, row) {
  const s = strength(token, row);
  const least = about.threshold ? about.threshold[row] : -1;
  const left = about.threshold && shown.risk(now.alpha, token, row) < least;
  return Number.isNaN(s) ? NaN : left ? 0 : about.alphas[now.alpha] * about.spread[row] * s;
}

// Of an edited head; of an edit of states, of a column of its layers.
function ofHead(quantity, token, row) {
  if (quantity === "s") return strength(token, row);
  if (quantity === "change") return change(token, row);
  if (about.kind === "states") return ofColumn(quantity, token, row);
  return shown.risk(now.alpha, token, row);
}

function mean(values) {
  const known = values.filter((value) => !Number.isNaN(value));
  return known.length ? known.reduce((a, b) => a + b, 0) / known.length : NaN;
}

function ofToken(quantity, token) {
  if (quantity === "doubt") {
    const layers = now.scope === "all" ? layersShown() : [now.layer];
    return mean(layers.map((layer) => shown.doubt(now.alpha, token, layer)));
  }
  if (quantity === "moved") return mean(layersShown().map((layer) => movedAt(token, layer)));
  if (quantity === "nats") return shown.nats[now.alpha][token];
  if (quantity === "gain") return shown.nats[now.alpha][token] - shown.nats[about.alphas.indexOf(0)][token];
  return mean(rowsShown().map((row) => ofHead(quantity, token, row)));
}

// Least and most at every α, so that colours change with α and not their scale.
function overAlphas(value) {
  const kept = now.alpha;
  const found = [];
  about.alphas.forEach((_, alpha) => {
    now.alpha = alpha;
    for (let token = 0; token < shown.count; token++) found.push(...value(token).filter((one) => !Number.isNaN(one)));
  });
  now.alpha = kept;
  if (!found.length) return null;
  return [found.reduce((a, b) => Math.min(a, b)), found.reduce((a, b) => Math.max(a, b))];
}

function range(quantity, ofHeads = false) {
  const { low, high } = QUANTITIES[quantity];
  if (low !== undefined && now.stretch === "whole") return [low, high];
  const rows = about.edited.map((_, row) => row);
  const found = overAlphas((token) => (ofHeads ? rows.map((row) => ofHead(quantity, token, row)) : [ofToken(quantity, token)])) || [low ?? 0, high ?? 1];
  if (diverges(quantity, found[0])) {
    const most = Math.max(0.01, -found[0], found[1]);
    return [-most, most];
  }
  if (low !== undefined) return found;
  return [Math.min(0, found[0]), Math.max(0, found[1])];
}

// Whether 0 stands in the middle of the colours: gates may lie on both sides of it.
function diverges(quantity, low) {
  return QUANTITIES[quantity].diverging || (quantity === "gate" && low < 0);
}

function stopsOf(quantity, low) {
  return diverges(quantity, low) ? DIVERGING : CIVIDIS;
}

function colourOf(quantity, value, [low, high]) {
  if (Number.isNaN(value)) return null;
  return mixed(stopsOf(quantity, low), scaled(value, low, high));
}

function bits(i, j) {
  return shown.graph(now.depth, now.layer, i, j);
}

// Least and most over all pairs of different tokens; over all where there is one token.
function graphRange() {
  const found = [];
  for (let i = 0; i < shown.count; i++) for (let j = i + 1; j < shown.count; j++) found.push(bits(i, j));
  if (!found.length) found.push(bits(0, 0));
  return [found.reduce((a, b) => Math.min(a, b)), found.reduce((a, b) => Math.max(a, b))];
}

function written(token) {
  const parts = [`“${visible(shown.tokens[token])}”, token ${token + 1} of ${shown.count}`];
  parts.push(...saidOfEdit(token), `log-probability ${told("nats", token)} nats`);
  if (token !== now.token) parts.push(`${numeral(bits(now.token, token), 2)} ${about.unit} with “${visible(shown.tokens[now.token])}”`);
  else parts.push(`${numeral(bits(token, token), 2)} ${about.unit} with itself`);
  return parts.join(" · ");
}

function drawSentence() {
  const [kind, question, answer] = [about.answers[now.answer][2], about.answers[now.answer][0], about.answers[now.answer][1]];
  element("sentence-title").textContent = `${kind[0].toUpperCase() + kind.slice(1)} answer, ${shown.count} token${shown.count === 1 ? "" : "s"}`;
  element("sentence-title").title = `${question} ${answer}`;
  element("prompt").replaceChildren(...shown.prompt.map((text) => made("bdi", visible(text, false), "given")));
  const [low, high] = graphRange();
  const [from, to] = range(now.quantity);
  const digits = now.quantity === "moved" ? decimals(to) : 2;
  const boxes = shown.tokens.map((text, token) => {
    const value = ofToken(now.quantity, token);
    const colour = colourOf(now.quantity, value, [from, to]);
    const box = made("button", undefined, "token" + (colour ? "" : " unedited") + (token === now.token ? " chosen" : ""));
    box.type = "button";
    box.dataset.token = token;
    box.tabIndex = token === now.token ? 0 : -1;
    box.setAttribute("aria-pressed", String(token === now.token));
    const word = made("bdi", visible(text), "text");
    paint(word, colour);
    const share = token === now.token ? 0 : Math.max(0, scaled(bits(now.token, token), Math.min(0, low), high));
    const bar = made("span", undefined, "bar");
    bar.style.height = 26 * share + "px";
    const room = made("span", undefined, "room");
    room.append(bar);
    box.append(word, made("span", numeral(value, digits), "value"), room, made("span", token === now.token ? "●" : numeral(bits(now.token, token), 2), "bits"));
    box.setAttribute("aria-label", written(token));
    box.title = written(token);
    return box;
  });
  const held = element("sentence").contains(document.activeElement);
  element("sentence").replaceChildren(...boxes);
  if (held) boxes[now.token].focus();
  element("legend-name").textContent = QUANTITIES[now.quantity].name;
  element("legend-low").textContent = numeral(from, digits);
  element("legend-high").textContent = numeral(to, digits);
  drawScale("legend-bar", stopsOf(now.quantity, from));
  element("bars-legend").textContent = `Bars: ${about.similarity} with “${visible(shown.tokens[now.token])}” at layer ${now.layer}` + (about.unit ? `, in ${about.unit}` : "");
  element("readout").textContent = written(now.token);
}

function cells(tag, values) {
  const row = made("tr");
  row.append(...values.map((value) => made(tag, value)));
  return row;
}

function drawStrengths() {
  element("strengths-title").textContent = `Strengths at “${visible(shown.tokens[now.token])}”`;
  const rows = rowsShown().sort((a, b) => about.edited[a][0] - about.edited[b][0] || about.edited[a][1] - about.edited[b][1]);
  const head = cells("th", ["layer", "head", "σ", "p̂", "u", "s", "α·σ·s"]);
  const body = rows.map((row) => {
    const [layer, at] = about.edited[row];
    const values = [about.spread[row], ofHead("risk", now.token, row), shown.doubt(now.alpha, now.token, layer), strength(now.token, row), change(now.token, row)];
    return cells("td", [String(layer), String(at), ...values.map((value) => numeral(value, 3))]);
  });
  element("strengths").replaceChildren(head, ...body);
  element("strengths-note").textContent = rows.length ? `${formula()}, at the position before the token` : `No head of layer ${now.layer} is edited.`;
}

function drawHeadMap() {
  const quantity = QUANTITIES[now.quantity].perHead ? now.quantity : "risk";
  element("heads-title").textContent = `Heads: ${QUANTITIES[quantity].name}`;
  const [low, high] = range(quantity, true);
  const colour = (row) => {
    const found = colourOf(quantity, ofHead(quantity, now.token, row), [low, high]);
    return found ? css(found) : "transparent";
  };
  const label = (row) => `layer ${about.edited[row][0]}, head ${about.edited[row][1]}: p̂ ${numeral(ofHead("risk", now.token, row), 3)}, s ${numeral(strength(now.token, row), 3)}, α·σ·s ${numeral(change(now.token, row), 3)}`;
  element("heads").replaceChildren(drawHeads(about, colour, label, now.layer, now.row, (layer, row) => set({ layer, row })));
  element("heads-note").textContent = `From ${numeral(low, 2)} (dark) to ${numeral(high, 2)} (yellow); empty heads are not edited. Click a head for its layer and its attention.`;
}

function drawGraph() {
  element("graph-title").textContent = `Token graph of layer ${now.layer}` + (now.depth ? ` after ${now.depth} round${now.depth > 1 ? "s" : ""}` : "");
  const [low, high] = graphRange();
  const canvas = element("graph");
  const labels = shown.tokens.map((text) => cut(visible(text), 16));
  const room = widest(canvas, labels) + 8;
  const wide = Math.min(340, element("graph-box").clientWidth - room);
  const cell = Math.max(3, Math.min(28, Math.floor(wide / shown.count)));
  drawMatrix(canvas, cell, shown.count, bits, low, high, now.token);
  canvas.style.margin = `${room}px 0 0 ${room}px`;
  element("graph-labels").replaceChildren(drawLabels(room, cell, labels, now.token));
  canvas.setAttribute("aria-label", `${about.similarity} between tokens, from ${numeral(low, 2)} to ${numeral(high, 2)} ${about.unit}`);
  drawScale("graph-bar", CIVIDIS);
  element("graph-low").textContent = numeral(low, 2);
  element("graph-high").textContent = `${numeral(high, 2)} ${about.unit}`;
  element("graph-note").textContent = `${about.similarity[0].toUpperCase() + about.similarity.slice(1)} between the answer's tokens without the edit. The scale leaves out the diagonal, where a token meets itself (up to ${numeral(Math.max(...shown.tokens.map((_, i) => bits(i, i))), 2)} ${about.unit}). Click a row to choose its token.`;
}

function drawNats() {
  const own = about.alphas.map((_, alpha) => shown.nats[alpha][now.token]);
  const average = about.alphas.map((_, alpha) => mean(shown.nats[alpha]));
  element("nats").replaceChildren(drawCurves(about.alphas, [own, average], now.alpha, ["chosen token", "mean over the answer's tokens"]));
  const total = shown.nats[now.alpha].reduce((a, b) => a + b, 0);
  element("nats-note").textContent = `● “${visible(shown.tokens[now.token])}”  ■ mean over the answer's tokens. At α = ${about.alphas[now.alpha]} the whole answer has ${numeral(total, 2)} nats.`;
}

function drawWritten() {
  const head = cells("th", ["α", "greedy answer"]);
  const body = shown.written.map((text, alpha) => {
    const row = made("tr", undefined, alpha === now.alpha ? "here" : "");
    const cell = made("td");
    cell.append(made("bdi", visible(text.trim(), false)));
    row.append(made("td", String(about.alphas[alpha])), cell);
    return row;
  });
  element("written").replaceChildren(head, ...body);
}
