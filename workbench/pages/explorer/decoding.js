"use strict";
// Data of the page: elements of JSON, tensors in base64.

const NOTHING = 0xffff;

function element(id) {
  return document.getElementById(id);
}

function parsed(id) {
  return JSON.parse(element(id).textContent);
}

function bytes(text) {
  const plain = atob(text);
  const found = new Uint8Array(plain.length);
  for (let i = 0; i < plain.length; i++) found[i] = plain.charCodeAt(i);
  return found;
}

// 16-bit numbers from 0 to 1; NaN where there is none.
function shares(text) {
  const raw = bytes(text);
  const found = new Float64Array(raw.length / 2);
  for (let i = 0; i < found.length; i++) {
    const level = raw[2 * i] | (raw[2 * i + 1] << 8);
    found[i] = level === NOTHING ? NaN : level / (NOTHING - 1);
  }
  return found;
}

// One answer under one of the edits, with functions that look up its values.
function decoded(number, edit, whole) {
  const own = whole.edits[edit];
  const data = { ...parsed(`answer-${number}`), ...parsed(`answer-${number}-edit-${edit}`) };
  const count = data.tokens.length;
  const pairs = (count * (count + 1)) / 2;
  const levels = bytes(data.graphs);
  const risk = shares(data.risk);
  const doubt = shares(data.doubt);
  const looks = bytes(data.attention);
  const [edited, before] = [own.edited.length, data.prompt.length];
  const sources = before + count - 1;
  return {
    ...data,
    count,
    before,
    looks: looks.length > 0,
    graph(depth, layer, i, j) {
      const [a, b] = i < j ? [i, j] : [j, i];
      const low = data.low[depth][layer];
      const level = levels[(depth * whole.layers + layer) * pairs + a * count - (a * (a - 1)) / 2 + b - a];
      return low + ((data.high[depth][layer] - low) * level) / 255;
    },
    risk: (alpha, token, row) => risk[(alpha * count + token) * edited + row],
    doubt: (alpha, token, layer) => doubt[(alpha * count + token) * whole.layers + layer],
    attention: (pass, row, token, source) => looks[((pass * edited + row) * count + token) * sources + source] / 255,
  };
}

const NAMED = {
  "\n": "⏎", "\r": "␍", "\t": "⇥", "\u00a0": "⍽", "\u00ad": "‹SHY›", "\u200b": "‹ZWSP›",
  "\u200c": "‹ZWNJ›", "\u200d": "‹ZWJ›", "\u200e": "‹LRM›", "\u200f": "‹RLM›", "\ufeff": "‹BOM›",
};

// A text in which nothing is invisible; of a token the spaces at its edges are marked too.
function visible(text, token = true) {
  if (text === "") return "∅";
  const ends = token ? text.replace(/^ +| +$/g, (spaces) => "␣".repeat(spaces.length)) : text;
  return ends.replace(/[\u0000-\u001f\u007f-\u00a0\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]/gu, (sign) => {
    if (NAMED[sign]) return NAMED[sign];
    const code = sign.codePointAt(0);
    return code < 0x20 ? String.fromCodePoint(0x2400 + code) : "‹U+" + code.toString(16).toUpperCase().padStart(4, "0") + "›";
  });
}
