"use strict";
// Texts go into the page as text nodes only: nothing in a run can become markup.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const state = {
  table: 0, board: 0, hidden: new Set(), filter: "all", search: "", detail: false, shown: 10,
};

function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") node.className = value;
    else if (name.startsWith("--")) node.style.setProperty(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((c) => c !== null && c !== undefined));
  return node;
}

function draw(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined) continue;
    // Colours go through the style: an attribute cannot read a CSS variable.
    if (String(value).startsWith("var(")) node.style[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}

// The unedited model is grey.
const shift = data.methods.some((method) => method.base) ? 0 : 1;
const color = (m) => `var(--c${m + shift < 12 ? m + shift : 1 + ((m + shift - 1) % 11)})`;
const dot = (method) =>
  make("span", { class: "dot", "--c": color(method), "aria-hidden": "true" });

function number(value, signed) {
  const text = (value.toFixed(data.decimals) * 1 + 0).toFixed(data.decimals);
  return (signed && Number(text) > 0 ? "+" + text : text).replace("-", "\u2212");
}

const range = (value) => (value[1] === null ? "" : number(value[1]) + "–" + number(value[2]));
const pText = (p) => (p < 0.001 ? "< 0.001" : p.toFixed(3));
const table = () => data.tables[state.table];
const board = () => data.boards[state.board];
const methodName = (entry) => data.methods[entry.method].name;
const isBase = (entry) => data.methods[entry.method].base;
const metricName = (metric) => data.metrics[metric].name;

// Every figure names the runs that it was counted from.
const runsOf = (boards) => [...new Set(boards.flatMap((b) => b.entries.map((e) => e.run)))];

// Entries of the shown base model whose method is switched on, with their place in the answers.
function entries() {
  return board().entries
    .map((entry, place) => ({ ...entry, place }))
    .filter((entry) => !state.hidden.has(entry.method));
}

// A tip shows on hover and on keyboard focus, and is what a screen reader hears.
function withTip(node, text) {
  node.setAttribute("aria-label", text.replaceAll("\n", ", "));
  const tip = byId("tip");
  const show = (x, y) => {
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const below = y + box.height + 20 < innerHeight;
    tip.style.left = Math.max(6, Math.min(x + 14, innerWidth - box.width - 6)) + "px";
    tip.style.top = (below ? y + 16 : y - box.height - 12) + "px";
  };
  const hide = () => { tip.hidden = true; };
  node.addEventListener("pointermove", (event) => show(event.clientX, event.clientY));
  node.addEventListener("pointerleave", hide);
  node.addEventListener("focus", () => {
    const box = node.getBoundingClientRect();
    show(box.left + box.width / 2, box.top + box.height / 2);
  });
  node.addEventListener("blur", hide);
  return node;
}

function pressable(pressed, act, ...children) {
  const node = make("button", { type: "button", "aria-pressed": String(pressed) }, ...children);
  node.addEventListener("click", act);
  return node;
}

function options(select, items, chosen) {
  select.replaceChildren(...items.map(([value, text]) => {
    const option = make("option", { value }, text);
    option.selected = String(value) === String(chosen);
    return option;
  }));
}
