// Panels that set two things side by side: attention without and under the edit, and several edits.

// How a head weighs the tokens so far, as it is about to write the chosen token.
function drawAttention() {
  element("attention-section").hidden = !shown.looks;
  if (!shown.looks) return;
  const [layer, head] = about.edited[now.row];
  const sources = [...shown.prompt, ...shown.tokens].slice(0, shown.before + now.token);
  const look = (pass) => sources.map((_, source) => shown.attention(pass, now.row, now.token, source));
  const [without, under] = [look(0), look(1)];
  const apart = under.map((value, source) => value - without[source]);
  const difference = now.pass === "difference";
  const values = difference ? apart : [without, under][now.pass];
  // The first token takes what the others leave, so that they would all be dark beside it.
  const rest = (own) => (own.length > 1 ? own.slice(1) : own);
  const most = Math.max(0.01, ...(difference ? rest(apart).map(Math.abs) : [...rest(without), ...rest(under)]));
  const low = difference ? -most : 0;
  const boxes = sources.map((text, source) => {
    const box = made("span", undefined, "look");
    const word = made("bdi", visible(text), "text");
    paint(word, mixed(difference ? DIVERGING : CIVIDIS, scaled(values[source], low, most)));
    box.append(word, made("span", numeral(values[source], 2), "value"));
    box.title = `“${visible(text)}”: ${numeral(without[source], 3)} without the edit, ${numeral(under[source], 3)} under it`;
    return box;
  });
  const own = `layer ${layer}, head ${head}`;
  element("attention-title").textContent = `Attention before “${visible(shown.tokens[now.token])}”: ${own}`;
  element("attention").replaceChildren(...boxes);
  drawScale("attention-bar", difference ? DIVERGING : CIVIDIS);
  element("attention-low").textContent = numeral(low, 2);
  element("attention-high").textContent = numeral(most, 2);
  const moved = apart.reduce((sum, value) => sum + Math.abs(value), 0) / 2;
  element("attention-note").textContent = `Shares of the head's attention, which add up to 1; the scale leaves out the first token. Under the edit's own α (${about.alpha}) ${numeral(moved, 2)} of it moves. It moves only behind the first edited layer: heads of that layer read what no edit has changed.`;
}

// Another edit's view: what `look` gives with its values in the place of the shown edit's.
function under(edit, look) {
  const kept = [about, shown, now.alpha, now.beta];
  if (edit !== now.edit) {
    about = { ...whole, ...whole.edits[edit] };
    shown = every[edit];
    now.alpha = ownAlpha(edit);
    now.beta = about.beta;
  }
  const found = look();
  [about, shown, now.alpha, now.beta] = kept;
  return found;
}

function drawBeside() {
  if (whole.edits.length === 1) return;
  const quantity = now.quantity;
  const rows = whole.edits.map((_, edit) =>
    under(edit, () => ({
      alpha: about.alphas[now.alpha],
      values: shown.tokens.map((_, token) => (has(quantity) ? ofToken(quantity, token) : NaN)),
      lacks: !has(quantity),
      total: shown.nats[now.alpha].reduce((a, b) => a + b, 0),
      written: shown.written[now.alpha],
    })),
  );
  const none = whole.edits.findIndex(({ alphas }) => alphas.includes(0));
  const known = rows.flatMap(({ values }) => values).filter((value) => !Number.isNaN(value));
  let [low, high] = known.length ? [Math.min(...known), Math.max(...known)] : [0, 1];
  if (diverges(quantity, low)) [low, high] = [-Math.max(0.01, -low, high), Math.max(0.01, -low, high)];
  const digits = quantity === "moved" ? decimals(high) : 2;
  const lines = rows.map(({ alpha, values, lacks, total, written }, edit) => {
    const line = made("tr", undefined, edit === now.edit ? "here" : "");
    const name = made("button", visible(whole.edits[edit].name, false));
    name.type = "button";
    name.addEventListener("click", () => set({ edit }));
    const first = made("th");
    first.append(name);
    const strip = made("td", undefined, "strip");
    strip.append(
      ...values.map((value, token) => {
        const word = made("bdi", visible(shown.tokens[token]), "text" + (token === now.token ? " chosen" : ""));
        paint(word, colourOf(quantity, value, [low, high]));
        word.title = `${whole.edits[edit].name}: ${numeral(value, Math.max(3, digits))}`;
        word.addEventListener("click", () => set({ token }));
        return word;
      }),
    );
    if (lacks) strip.append(made("span", "has no such value", "none"));
    const says = made("td", undefined, "says");
    says.append(made("bdi", visible(written.trim(), false)));
    line.append(first, made("td", String(alpha)), strip, made("td", numeral(total, 2)), says);
    return line;
  });
  if (none >= 0) {
    const at = whole.edits[none].alphas.indexOf(0);
    const says = made("td", undefined, "says");
    says.append(made("bdi", visible(every[none].written[at].trim(), false)));
    const line = made("tr");
    line.append(made("th", "no edit"), made("td", "–"), made("td", "–"), made("td", numeral(every[none].nats[at].reduce((a, b) => a + b, 0), 2)), says);
    lines.unshift(line);
  }
  element("beside").replaceChildren(cells("th", ["edit", "α", QUANTITIES[quantity].name, "nats of the answer", "writes"]), ...lines);
  drawScale("beside-bar", stopsOf(quantity, low));
  element("beside-units").hidden = quantity !== "moved";
  element("beside-low").textContent = numeral(low, digits);
  element("beside-high").textContent = numeral(high, digits);
}
