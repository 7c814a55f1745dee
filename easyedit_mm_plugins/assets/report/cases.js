const KINDS = {
  edit: "the edit", rephrase: "rephrased", in_scope: "in scope", out_scope: "out of scope",
  text_loc: "unrelated text", image_rephrase: "on another picture", image_loc: "unrelated picture",
};
const STAYS = new Set(["out_scope", "text_loc", "image_loc"]);
const FILTERS = {
  all: ["All", "every case"],
  disagree: ["Methods disagree", "some question that one method gets right and another does not"],
  failed: ["Edit failed", "a method does not give the new answer to the edit's own question"],
  broken: ["Locality broken", "a method changes an answer that should stay"],
};
const word = (i) => data.strings[i];
const answersOf = (entry, at) => data.answers[state.board][entry.place][at];
const rivals = () => entries().filter((e) => !isBase(e));

// Which filters a case falls under, by the methods that are switched on.
function marks(item, at) {
  const found = new Set(["all"]);
  const known = rivals().map((e) => answersOf(e, at)).filter(Boolean);
  item.questions.forEach(([kind], q) => {
    const right = known.map((flat) => flat[4 * q + 1] === 100);
    if (right.some(Boolean) && !right.every(Boolean)) found.add("disagree");
    if (word(kind) === "edit" && right.includes(false)) found.add("failed");
    if (STAYS.has(word(kind)) && right.includes(false)) found.add("broken");
  });
  return found;
}

function caseText(item, at) {
  const answers = data.answers[state.board].flatMap((cases) =>
    (cases[at] || []).filter((x, i) => i % 4 === 0).map(word));
  const questions = item.questions.flatMap(([, text, target]) => [word(text), word(target)]);
  return [item.id, ...item.edit.slice(0, 2), ...questions, ...answers].join("\n").toLowerCase();
}

function picture(place, caption, named) {
  const gone = make("div", { class: "gone" }, named ? "picture not there" : "no picture");
  const src = data.pictures[place];
  const image = make("img", { src, alt: caption || "the edit's picture", loading: "lazy" });
  return make("figure", {}, place === null ? gone : image,
    caption ? make("figcaption", {}, caption) : null);
}

function answerCell(entry, flat, q) {
  const label = make("span", { class: "label" }, methodName(entry));
  if (!flat) return make("td", { class: "unknown" }, label, "not measured");
  const [text, right, score, route] = flat.slice(4 * q, 4 * q + 4);
  const sort = right === 100 ? "right" : right === 0 ? "wrong" : "part";
  const sign = { right: "✓", wrong: "✗", part: "≈" }[sort];
  const spoken = { right: "right:", wrong: "wrong:", part: right + " percent right:" }[sort];
  const extra = sort === "part" ? [right + " %"] : [];
  if (state.detail) {
    extra.push(["base model", "this edit", "another edit"][route]);
    if (score !== null) extra.push((score / 1000).toFixed(3));
  }
  return make("td", { class: sort }, label,
    make("span", { class: "sign", "aria-label": spoken, role: "img" }, sign),
    word(text) || "(nothing)", extra.length ? make("small", {}, extra.join(", ")) : null);
}

// What the unedited model says, and what the edited one should say.
function wanted(kind, before, target) {
  const stays = STAYS.has(kind);
  return make("span", { class: "was" }, stays ? "stays " : before + " → ",
    make("b", {}, stays ? before : target));
}

function caseCard([item, at]) {
  const chosen = rivals(), before = data.before[state.board][at];
  const letters = new Map(), extra = [];
  for (const [kind, , , place] of item.questions) {
    if (place === null || place === item.edit[2] || letters.has(place)) continue;
    letters.set(place, String.fromCharCode(66 + letters.size));
    const what = word(kind) === "image_rephrase" ? "the same again" : "unrelated";
    extra.push(picture(place, `picture ${letters.get(place)}: ${what}`));
  }
  const own = picture(item.edit[2], extra.length ? "picture A: the edit's" : "", item.named);
  const top = make("tr", {}, make("th", { scope: "col" }, "Question, and what becomes of its answer"),
    chosen.map((e) => make("th", { scope: "col" }, dot(e.method), methodName(e))));
  const rows = item.questions.map(([kind, text, target, place], q) => {
    const where = letters.has(place) ? ", picture " + letters.get(place) : "";
    const said = before ? word(before[q]) || "(nothing)" : "?";
    return make("tr", {}, make("th", { scope: "row" },
      make("span", { class: "kind" }, (KINDS[word(kind)] || word(kind)) + where),
      word(text), wanted(word(kind), said, word(target))),
    chosen.map((e) => answerCell(e, answersOf(e, at), q)));
  });
  const arrow = make("span", { class: "arrow", "aria-label": "becomes", role: "img" }, "→");
  const title = make("h3", {}, item.edit[0], arrow, make("span", { class: "new" }, item.edit[1]));
  const width = { "--n": chosen.length, class: chosen.length < 4 ? "few" : null };
  const grid = make("table", width, make("thead", {}, top), make("tbody", {}, rows));
  const region = { tabindex: 0, role: "region", "aria-label": "Answers, " + item.id };
  const answers = make("div", { class: "answers", ...region }, grid);
  return make("article", { "data-id": item.id }, make("div", { class: "pictures" }, own, extra),
    make("div", {}, make("header", {}, title, make("span", { class: "id" }, item.id)), answers));
}

function cases() {
  const { all: whole, shown } = data.cases[state.table];
  const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  const found = shown.map((item, at) => [item, at]).filter(([item, at]) => {
    const text = words.length ? caseText(item, at) : "";
    return words.every((w) => text.includes(w));
  });
  const sorted = new Map(found.map(([item, at]) => [at, marks(item, at)]));
  const fits = (name) => found.filter(([, at]) => sorted.get(at).has(name));
  byId("filters").replaceChildren(...Object.entries(FILTERS).map(([name, [label, title]]) => {
    const act = () => {
      Object.assign(state, { filter: name, shown: 10 });
      cases();
      remember();
      byId("filters").querySelector("[aria-pressed=true]").focus();
    };
    const count = make("span", { class: "n" }, String(fits(name).length));
    const node = pressable(state.filter === name, act, label, count);
    node.title = title;
    node.dataset.filter = name;
    return node;
  }));
  const chosen = fits(state.filter);
  byId("count").textContent = `${chosen.length} of ${shown.length} cases` +
    (state.filter === "all" ? "" : ": " + FILTERS[state.filter][1]) +
    (shown.length < whole
      ? `. This page holds the first ${shown.length} of ${whole}; charts and tables count all.` : "");
  byId("list").replaceChildren(...chosen.slice(0, state.shown).map(caseCard));
  if (!chosen.length) byId("list").append(make("p", { class: "empty" }, "No case fits."));
  byId("more").hidden = chosen.length <= state.shown;
}
