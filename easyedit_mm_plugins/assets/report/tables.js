// The papers' layout: methods down, base models and metrics across.
function overview() {
  const shown = table().boards.map((place) => data.boards[place]);
  const top = make("tr", {}, make("td"));
  const second = make("tr", {}, make("th", { scope: "col" }, "Method"));
  for (const b of shown) {
    top.append(make("th", { colspan: b.main.length, scope: "colgroup", class: "start" }, b.backbone));
    b.main.forEach((metric, i) => {
      const { name, short, source } = data.metrics[metric];
      const title = [name, source].filter(Boolean).join(", ");
      second.append(make("th", { scope: "col", class: i ? null : "start", title }, short));
    });
  }
  const body = make("tbody");
  data.methods.forEach((method, m) => {
    const rows = shown.map((b) => b.entries.find((e) => e.method === m));
    if (!rows.some(Boolean)) return;
    const cells = shown.flatMap((b, at) =>
      b.main.map((metric, i) => valueCell(rows[at], metric, i ? "" : "start")));
    body.append(make("tr", {}, make("th", { scope: "row" }, dot(m), method.name), cells));
  });
  byId("paper").replaceChildren(make("table", {}, make("thead", {}, top, second), body));
  const shares = shown.flatMap((b) => b.entries.map((e) => e.share)).filter(Boolean);
  const rules = table().protocol;
  byId("paper-note").textContent = "Percent, mean over cases; small print: 95 % bootstrap interval " +
    `over cases (${data.bootstrap} resamples). Bold: best of the column, underlined: second best; the ` +
    `unedited model is no competitor. Protocol ${rules}: ${data.protocols[rules]}. ` +
    `From run ${runsOf(shown).join(", ")}.` +
    (shares.length ? " “Paper”: the published number and ours minus it, where base model and data are " +
      `the paper's; measured here on ${[...new Set(shares)].join("; ")}.` : "");
}

function valueCell(entry, metric, start) {
  const value = entry && entry.values[metric];
  if (!value) return make("td", { class: "none " + start }, "–");
  const paper = entry.published[metric];
  const rank = { 1: " first", 2: " second" }[value[3]] || "";
  const cell = make("td", { class: start + rank }, make("span", {}, number(value[0])),
    make("small", {}, range(value)));
  if (paper) {
    const change = number(value[0] - paper[0], true);
    cell.append(make("small", { class: "published" }, `paper ${paper[0].toFixed(2)} (${change})`));
  }
  cell.style.background = `rgba(var(--heat), ${(Math.max(0, (value[0] - 40) / 60) * 0.2).toFixed(3)})`;
  return cell;
}

// The best of each of the paper's metrics on the base model that is shown.
function cards() {
  byId("cards").replaceChildren(...board().main.flatMap((metric) => {
    const known = board().entries.filter((e) => e.values[metric] && !isBase(e));
    const best = known.filter((e) => e.values[metric][3] === 1 || known.length === 1);
    if (!best.length) return [];
    const value = best[0].values[metric];
    const names = best.length > 3 ? best.length + " methods"
      : best.map((e) => [dot(e.method), methodName(e)]);
    return [make("div", {}, make("div", { class: "what" }, "Best " + metricName(metric)),
      make("div", { class: "big" }, number(value[0]), " ", make("small", {}, range(value))),
      make("div", { class: "who" }, [names].flat(2)))];
  }));
}

function missing() {
  if (!data.missing.length) return;
  const rows = data.missing.map((m) => make("li", {}, make("b", {}, m.method),
    ` on ${m.backbone}, ${m.dataset} (${m.status}): ${m.reason} [${m.run}]`));
  byId("missing").replaceChildren(make("div", { class: "failed" },
    make("h3", {}, "Not completely measured"), make("ul", {}, rows)));
}

// Holm's correction of p-values that are read together.
function holm(ps) {
  const corrected = [];
  let highest = 0;
  ps.map((p, i) => i).sort((a, b) => ps[a] - ps[b]).forEach((i, place) => {
    highest = Math.max(highest, Math.min(1, (ps.length - place) * ps[i]));
    corrected[i] = highest;
  });
  return corrected;
}

function differences() {
  const b = board(), reference = Number(byId("reference").value);
  const tests = new Map();
  for (const [i, j, found] of b.tests) {
    if (j === reference) tests.set(i, [1, found]);
    if (i === reference) tests.set(j, [-1, found]);
  }
  const others = [...tests.keys()].filter((i) => !state.hidden.has(b.entries[i].method));
  others.sort((x, y) => x - y);
  byId("tests-note").textContent = "";
  if (!others.length) {
    const text = "There is no other method to compare with.";
    byId("differences").replaceChildren(make("p", { class: "empty" }, text));
    return;
  }
  const metrics = b.metrics.filter((metric) => others.some((i) => tests.get(i)[1][metric]));
  const p = new Map(metrics.map((metric) => {
    const known = others.filter((i) => tests.get(i)[1][metric]);
    const ps = holm(known.map((i) => tests.get(i)[1][metric][3]));
    return [metric, new Map(known.map((i, at) => [i, ps[at]]))];
  }));
  const top = make("tr", {}, make("th", { scope: "col" }, "Method"),
    metrics.map((metric) => make("th", { scope: "col" }, metricName(metric))));
  const body = others.map((i) => make("tr", {},
    make("th", { scope: "row" }, dot(b.entries[i].method), methodName(b.entries[i])),
    metrics.map((metric) => differenceCell(...tests.get(i), metric, p.get(metric).get(i)))));
  byId("differences").replaceChildren(
    make("table", {}, make("thead", {}, top), make("tbody", {}, body)));
  const counts = others.flatMap((i) => metrics.map((m) => tests.get(i)[1][m]))
    .filter(Boolean).map((test) => test[4]);
  const [least, most] = [Math.min(...counts), Math.max(...counts)];
  byId("tests-note").textContent = "p: two-sided paired sign-flip permutation test over " +
    (least < most ? least + " to " : "") + `${most} common cases (${data.flips.toLocaleString("en")} flips), ` +
    "corrected after Holm over the column; bold and coloured below 0.05. Below the difference its 95 % " +
    "paired bootstrap interval.";
}

function differenceCell(sign, found, metric, p) {
  const test = found[metric];
  if (!test) return make("td", { class: "none" }, "–");
  const [d, low, high] = sign > 0 ? test : [-test[0], -test[2], -test[1]];
  if (!d && !low && !high) return make("td", { class: "none" }, "same");
  const sure = p < 0.05, way = d > 0 ? "up" : "down";
  return make("td", { class: sure ? "sure" : null },
    make("span", { class: sure ? way : null }, number(d, true)),
    make("small", {}, number(low, true) + " to " + number(high, true)),
    make("small", {}, "p " + pText(p)));
}

function sources() {
  const runs = data.runs.map((run) => {
    const settings = data.boards.flatMap((b) => b.entries
      .filter((e) => e.run === run.name && e.settings.length)
      .map((e) => [`${methodName(e)} on ${b.backbone}`, e.settings.map((s) => s.join(": ")).join("; ")]));
    const counts = Object.entries(run.cases).map(([name, n]) => `${n} of ${name}`);
    const rows = [
      ["Folder", make("code", {}, run.path)],
      ["Started", run.started ? run.started + " UTC" : "unknown"],
      ["On", run.hardware],
      ["Commit", make("code", {}, run.commit)],
      ["Seed", String(run.seed ?? "unknown")],
      ["Cases", counts.join(", ") || "unknown"],
      ...new Map(settings),
    ];
    return make("div", { class: "card" }, make("h3", {}, run.name),
      make("dl", {}, rows.flatMap(([k, v]) => [make("dt", {}, k), make("dd", {}, v)])));
  });
  const notes = data.notes.map((note) => make("li", {}, note));
  byId("run-list").replaceChildren(
    make("p", { class: "lead" }, "Every figure on this page was counted from the cases in these run " +
      "folders; what was not measured does not appear."), ...runs,
    notes.length ? make("div", { class: "card" }, make("h3", {}, "Notes"),
      make("ul", { class: "plain" }, notes)) : "",
    make("footer", {}, `easyedit-mm report, version ${data.version}. One file; it loads nothing.`));
}
