// Edits that are not of heads: of states, layer by layer, and of the whole model.

// What tokens are coloured by where an edit lacks what they were coloured by before.
function usual() {
  if (about.kind === "heads") return "s";
  if (about.kind === "states") return about.gated ? "gate" : "moved";
  return about.alphas.includes(0) ? "gain" : "nats";
}

// Whether the edit that is shown has a quantity.
function has(quantity) {
  const { kinds } = QUANTITIES[quantity];
  if (quantity === "gain") return about.alphas.includes(0);
  if (quantity === "gate" && !about.gated) return false;
  return !kinds || kinds.includes(about.kind);
}

// A gate, or how far states moved, of an edited layer.
function ofColumn(quantity, token, column) {
  return shown[quantity][now.alpha][token][column] ?? NaN;
}

// How far the states of a layer moved; of an edit of heads z, over those that are edited there.
function movedAt(token, layer) {
  const rows = about.edited.flatMap(([at], row) => (at === layer ? [row] : []));
  return about.kind === "heads" ? Math.hypot(...rows.map((row) => change(token, row))) : mean(rows.map((row) => ofColumn("moved", token, row)));
}

function layersShown() {
  return [...new Set(rowsShown().map((row) => about.edited[row][0]))];
}

// So many decimals that values of this size have at least three digits.
function decimals(size) {
  if (size >= 100) return 1;
  return size > 0 && size < 1 ? Math.min(6, 2 - Math.floor(Math.log10(size))) : 2;
}

function told(quantity, token) {
  const value = ofToken(quantity, token);
  return quantity === "moved" ? length(value) : numeral(value, 3);
}

function length(value) {
  return numeral(value, Math.max(3, decimals(value)));
}

// What a token's readout says of the edit.
function saidOfEdit(token) {
  if (about.kind === "heads") {
    return [`s ${told("s", token)}`, `p̂ ${told("risk", token)}`, `u ${told("doubt", token)}`, `α·σ·s ${told("change", token)} added along θ (units of z)`];
  }
  const parts = has("gate") ? [`gate ${told("gate", token)}`] : [];
  if (about.kind === "states") parts.push(`states moved by ${told("moved", token)} (norm${layersShown().length > 1 ? ", mean over layers" : ""})`);
  else if (has("gain")) parts.push(`${told("gain", token)} nats over α = 0`);
  return parts;
}

// A table of gates or of how far states moved: a row a token, a column an edited layer.
function drawStates() {
  const quantity = now.quantity === "gate" ? "gate" : "moved";
  const [low, high] = range(quantity, true);
  const digits = decimals(Math.max(-low, high));
  const title = quantity === "gate" ? "Gates at every token" : "How far states moved at every token";
  element("strengths-title").textContent = `${title}, at α = ${about.alphas[now.alpha]}`;
  const head = made("tr");
  head.append(made("th", "token"), ...about.edited.map(([layer, name]) => made("th", name, layer === now.layer ? "here" : "")));
  const body = shown.tokens.map((text, token) => {
    const row = made("tr", undefined, token === now.token ? "chosen" : "");
    const name = made("th");
    name.append(made("bdi", cut(visible(text), 16)));
    row.append(name);
    about.edited.forEach(([layer, point], column) => {
      const value = ofColumn(quantity, token, column);
      const cell = made("td", numeral(value, digits));
      paint(cell, colourOf(quantity, value, [low, high]));
      const gate = has("gate") ? `, gate ${numeral(ofColumn("gate", token, column), 3)}` : "";
      cell.title = `“${visible(text)}”, ${point}: moved by ${length(ofColumn("moved", token, column))}${gate}`;
      cell.addEventListener("click", () => set({ token, layer }));
      row.append(cell);
    });
    return row;
  });
  element("strengths").replaceChildren(head, ...body);
  const what = quantity === "gate" ? "A gate is what the change of a token is multiplied with, a mean over a layer's heads and places. Colour tokens by something else to see how far states moved." : `The norm of what is added to a layer's states, in their own units, over all of its edited places.${has("gate") ? " Colour tokens by the gate to see gates." : ""}`;
  const [least, most] = diverges(quantity, low) ? ["blue", "orange"] : ["dark", "yellow"];
  element("strengths-note").textContent = `${what} From ${numeral(low, digits)} (${least}) to ${numeral(high, digits)} (${most}); – where the edit does not act. Click a cell for its token and layer.`;
}

// Panels and knobs that the edit that is shown has a use for, and why it has none for the others.
function fitPanels() {
  const { kind } = about;
  element("strengths-section").hidden = kind === "whole";
  element("strengths").className = kind;
  element("heads-section").hidden = kind !== "heads";
  element("scope").closest("label").hidden = kind === "whole";
  element("stretch").closest("label").hidden = kind !== "heads";
  element("lacks").hidden = !about.lacks;
  element("lacks").textContent = about.lacks;
  const [layer, all] = element("scope").options;
  layer.textContent = kind === "heads" ? "the edited heads of the layer" : "the layer that is shown";
  all.textContent = kind === "heads" ? "all edited heads" : "all edited layers";
}

// How to read the page, of the kinds of edits that it holds.
function notes() {
  const kinds = new Set(whole.edits.map(({ kind }) => kind));
  const heads = kinds.has("heads");
  const found = [];
  const first = "A token is shown with the values of the position before it, where the model is about to write it";
  if (!heads) found.push(`${first}.`);
  else {
    found.push(`${first}: p̂ is fitted to tell, among the tokens of incorrect answers, those that the most similar correct answer lacks from those that it has; u is how spread the vocabulary is (read at the edited layers alone); s is how strongly z is edited there; α·σ·s is the length that is added to z along θ, in the units of z.`);
    found.push("p̂, u and log-probabilities come from passes at the α that is shown and at the edit's own β. Moving β shows what s and the change would be for the same p̂ and u; the passes are not run again.");
  }
  if (heads || kinds.has("states")) found.push("How far states moved is the norm of what an edit adds to the states of a layer, in the units of those states (of edits of heads, of z): at different points and layers the same number is not the same effect.");
  if (whole.edits.some(({ gated }) => gated)) found.push("A gate is what the change of a token is multiplied with, beside α: 0 leaves the token alone. Of affine changes it is the share of their mean change v that a token gets along v: below 0 it is pushed back, and at 0 it may still move across.");
  if (kinds.has("whole")) found.push("Edits of the whole model change what the prompt's tokens give too; they are shown by what they do to log-probabilities and to greedy answers.");
  return [
    ...found,
    "The answer's tokens are given to the model, whatever it would write; what it writes by itself stands in the table of greedy answers.",
    "Graphs are those of the answer without the edit. ␣ is a space at a token's edge, ⏎ a line break, ∅ a token without text; other invisible characters stand in ‹ ›.",
    `Values are rounded: ${heads ? "p̂ and u to 0.00001, " : ""}graph values to 1/510 of the range of their layer${heads ? ", attention to 1/510" : ""}.`,
  ];
}
