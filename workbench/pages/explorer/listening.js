// All panels drawn anew, and what happens when a knob turns.

function draw() {
  for (const name of ["answer", "edit", "pass", "layer", "depth", "alpha", "beta", "quantity", "scope", "stretch"]) element(name).value = now[name];
  element("layer-value").textContent = now.layer + (about.kind === "whole" || about.edited.some(([layer]) => layer === now.layer) ? "" : " (not edited)");
  element("depth-value").textContent = now.depth;
  element("alpha-value").textContent = about.alphas[now.alpha] + (about.alphas[now.alpha] === about.alpha ? " (edit's own)" : "");
  element("beta-value").textContent = numeral(now.beta, 2) + (now.beta === about.beta ? " (edit's own)" : "");
  element("alpha").setAttribute("aria-valuetext", String(about.alphas[now.alpha]));
  drawSentence();
  if (about.kind === "heads") {
    drawStrengths();
    drawHeadMap();
  } else if (about.kind === "states") drawStates();
  drawGraph();
  drawNats();
  drawWritten();
  drawAttention();
  drawBeside();
}

function set(changes) {
  Object.assign(now, changes);
  if ("edit" in changes) {
    about = { ...whole, ...whole.edits[now.edit] };
    Object.assign(now, { alpha: ownAlpha(now.edit), beta: about.beta, row: 0 });
    fitKnobs();
  }
  if ("answer" in changes) {
    every = whole.edits.map((_, edit) => decoded(now.answer, edit, whole));
    now.token = 0;
  }
  const ofLayer = about.edited.findIndex(([layer]) => layer === now.layer);
  if (ofLayer >= 0 && about.edited[now.row][0] !== now.layer) now.row = ofLayer;
  shown = every[now.edit];
  draw();
}

function listen() {
  for (const name of ["layer", "depth", "alpha", "beta"]) element(name).addEventListener("input", (event) => set({ [name]: Number(event.target.value) }));
  for (const name of ["quantity", "scope", "stretch", "pass"]) element(name).addEventListener("change", (event) => set({ [name]: event.target.value }));
  element("answer").addEventListener("change", (event) => set({ answer: Number(event.target.value) }));
  element("edit").addEventListener("change", (event) => set({ edit: Number(event.target.value) }));
  const all = about.answers.length;
  element("before").addEventListener("click", () => set({ answer: (now.answer + all - 1) % all }));
  element("after").addEventListener("click", () => set({ answer: (now.answer + 1) % all }));
  const sentence = element("sentence");
  const tokenOf = (event) => event.target.closest(".token");
  sentence.addEventListener("click", (event) => tokenOf(event) && set({ token: Number(tokenOf(event).dataset.token) }));
  const read = (event) => tokenOf(event) && (element("readout").textContent = written(Number(tokenOf(event).dataset.token)));
  sentence.addEventListener("focusin", read);
  // A pointer that rests while tokens are drawn anew under it has not moved.
  sentence.addEventListener("mousemove", (event) => (event.movementX || event.movementY) && read(event));
  sentence.addEventListener("mouseleave", () => (element("readout").textContent = written(now.token)));
  sentence.addEventListener("keydown", (event) => {
    const to = { ArrowLeft: now.token - 1, ArrowRight: now.token + 1, Home: 0, End: shown.count - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    set({ token: Math.max(0, Math.min(shown.count - 1, to)) });
  });
  element("graph-labels").addEventListener("click", (event) => {
    if (event.target.dataset.token) set({ token: Number(event.target.dataset.token) });
  });
  window.addEventListener("resize", drawGraph);
  element("graph").addEventListener("click", (event) => {
    const row = Math.floor(event.offsetY / Number(event.target.dataset.cell));
    set({ token: Math.min(shown.count - 1, row) });
  });
}

// What can be chosen under the edit that is shown.
function fitKnobs() {
  element("alpha").max = about.alphas.length - 1;
  element("beta").closest("label").hidden = !(about.parts[0] && about.parts[1]);
  element("quantity").replaceChildren();
  for (const [name, { name: text }] of Object.entries(QUANTITIES)) {
    if (!has(name)) continue;
    const option = made("option", text);
    option.value = name;
    element("quantity").append(option);
  }
  if (!has(now.quantity)) now.quantity = usual();
  fitPanels();
}

function begin() {
  element("title").textContent = visible(about.title, false);
  element("subtitle").textContent = `${about.model} · ${whole.edits.length === 1 ? about.edit : `${whole.edits.length} edits`} · ${about.answers.length} answer${about.answers.length === 1 ? "" : "s"}`;
  about.answers.forEach(([question, answer, kind], index) => {
    const option = made("option", `${index + 1}. ${kind}: ${visible(question, false)} → ${visible(answer.trim(), false)}`);
    option.value = index;
    element("answer").append(option);
  });
  whole.edits.forEach(({ name, edit }, index) => {
    const option = made("option", visible(`${name}: ${edit}`, false));
    option.value = index;
    element("edit").append(option);
  });
  element("edits").hidden = element("beside-section").hidden = whole.edits.length === 1;
  element("layer").max = about.layers - 1;
  element("depth").max = about.depth;
  fitKnobs();
  element("notes").replaceChildren(...notes().map((text) => made("li", text)));
  listen();
  set({ answer: 0 });
}

begin();
