"use strict";
// Texts go into the page as text nodes only: nothing in a record can become markup.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const filters = ["q", "split", "scope", "kind", "image"];
const perPage = 20;
let page = 0;

function make(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}

function picture(path, note) {
  if (!path) return null;
  const url = data.thumbs[path];
  const shown = url ? make("img") : make("div", "gone", "image not there");
  if (url) { shown.src = url; shown.alt = path; shown.loading = "lazy"; }
  return make("figure", "", shown, make("figcaption", "", note ? note + ": " + path : path));
}

function row(list, term, className, items) {
  items.forEach((item, i) => {
    const answer = make("b", "", item.a);
    const was = item.was ? make("s", "", item.was) : null;
    const hard = item.hard ? make("span", "hard", "hard") : null;
    list.append(make("dt", "", i ? "" : term),
      make("dd", className, item.q + " ", was, was ? " " : null, answer, hard));
  });
}

function card(record) {
  const list = make("dl");
  row(list, "edit", "edit", [{ q: record.src, a: record.alt, was: record.pred }]);
  row(list, "rephrase", "edit", record.rephrase.map((q) => ({ q, a: record.alt })));
  row(list, "in scope", "in", record.in);
  row(list, "out of scope", "out", record.out);
  row(list, "locality", "loc", record.loc);
  row(list, "other image", "loc", record.m_loc_pairs);
  const side = make("div", "", picture(record.image), picture(record.image_rephrase, "rephrased"),
    picture(record.m_loc, "other image"));
  const head = make("h2", "", record.split + " · " + record.id);
  const article = make("article", "", side, make("div", "", head, list));
  article.dataset.id = record.id;
  return article;
}

const texts = data.records.map((r) => [r.id, r.src, r.pred, r.alt, r.image, ...r.rephrase,
  ...[...r.in, ...r.out, ...r.loc, ...r.m_loc_pairs].flatMap((x) => [x.q, x.a])]
  .join("\n").toLowerCase());

function matches(record, i, f) {
  if (f.split && record.split !== f.split) return false;
  if (f.kind && record.kind !== f.kind) return false;
  if (f.image && (f.image === "there") !== Boolean(data.thumbs[record.image])) return false;
  if (f.scope === "hard-in" && !record.in.some((x) => x.hard)) return false;
  if (f.scope === "hard-out" && !record.out.some((x) => x.hard)) return false;
  if (f.scope === "no-in" && record.in.length) return false;
  if (f.scope === "no-out" && record.out.length) return false;
  return f.q.toLowerCase().split(/\s+/).every((word) => texts[i].includes(word));
}

function show() {
  const f = Object.fromEntries(filters.map((id) => [id, byId(id).value]));
  const found = data.records.filter((r, i) => matches(r, i, f));
  const pages = Math.max(1, Math.ceil(found.length / perPage));
  page = Math.min(Math.max(page, 0), pages - 1);
  byId("list").replaceChildren(...found.slice(page * perPage, (page + 1) * perPage).map(card));
  byId("count").textContent = found.length + " of " + data.records.length + " records";
  byId("page").textContent = "page " + (page + 1) + " of " + pages;
  byId("prev").disabled = page === 0;
  byId("next").disabled = page === pages - 1;
  const state = new URLSearchParams(Object.entries(f).filter(([, value]) => value));
  if (page) state.set("page", page + 1);
  // Keeps the view across a reload; the browser may forbid it for files.
  try { history.replaceState(null, "", "#" + state); } catch (error) { /* then not */ }
}

function restore() {
  const state = new URLSearchParams(location.hash.slice(1));
  filters.forEach((id) => { byId(id).value = state.get(id) || ""; });
  page = Number(state.get("page") || 1) - 1;
}

byId("title").textContent = data.title;
byId("split").append(...["", ...data.splits].map((name) => {
  const option = make("option", "", name || "any");
  option.value = name;
  return option;
}));
filters.forEach((id) => byId(id).addEventListener("input", () => { page = 0; show(); }));
byId("prev").addEventListener("click", () => { page -= 1; show(); scrollTo(0, 0); });
byId("next").addEventListener("click", () => { page += 1; show(); scrollTo(0, 0); });
addEventListener("hashchange", () => { restore(); show(); });
restore();
show();
