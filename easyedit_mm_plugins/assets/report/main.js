const SECTIONS = {
  overview: "Overview", metrics: "Metrics", tradeoff: "Trade-off", tests: "Differences",
  scope: "Scope", cost: "Cost", cases: "Cases", runs: "Runs",
};
const axes = { x: null, y: null };

function chooseBoard(place) {
  state.board = place;
  state.shown = 10;
  const { metrics, main, entries: rows } = board();
  const items = metrics.map((metric) => [metric, metricName(metric)]);
  for (const [axis, likely] of [["x", ["reliability"]], ["y", ["locality", "m_loc", "t_loc"]]]) {
    if (!metrics.includes(axes[axis])) axes[axis] = likely.find((m) => metrics.includes(m)) || metrics[0];
    options(byId(axis + "-axis"), items, axes[axis]);
  }
  const best = rows.findIndex((e) => (e.values[main[main.length - 1]] || [])[3] === 1);
  options(byId("reference"), rows.map((e, i) => [i, methodName(e)]), Math.max(0, best));
}

function chooseTable(place, backbone) {
  state.table = place;
  const boards = table().boards;
  chooseBoard(boards.find((b) => data.boards[b].backbone === backbone) ?? boards[0]);
}

function metricBars() {
  byId("bars").replaceChildren();
  for (const metric of board().metrics) {
    const rows = entries().filter((e) => e.values[metric]).map((entry) => {
      const [value, low, high, rank] = entry.values[metric];
      const paper = (entry.published[metric] || [])[0];
      const tip = [methodName(entry), `${metricName(metric)} ${number(value)}`];
      if (low !== null) tip.push("95 % interval " + range(entry.values[metric]));
      tip.push(entry.n + " cases");
      if (paper !== undefined) tip.push("paper " + paper.toFixed(2));
      const text = number(value), strong = rank === 1;
      return { entry, value, low, high, paper, strong, text, tip: tip.join("\n") };
    });
    if (rows.length) bars(byId("bars"), metricName(metric), data.metrics[metric].source, rows, 100);
  }
}

function costs() {
  byId("costs").replaceChildren();
  const plot = (title, note, key, unit, digits) => {
    const shape = { minimumFractionDigits: digits, maximumFractionDigits: digits };
    const rows = entries().filter((e) => e[key] !== null).map((entry) => {
      const text = entry[key].toLocaleString("en", shape);
      return { entry, value: entry[key], text, tip: `${methodName(entry)}\n${text} ${unit}` };
    });
    const most = Math.max(...rows.map((r) => r.value)) || 1;
    if (rows.length) bars(byId("costs"), title, note, rows, most);
    return rows.length > 0;
  };
  plot("Seconds per case", "edit and answers", "seconds", "seconds per case", 3);
  const memory = plot("Peak memory", "MB, base model included", "memory", "MB", 0);
  byId("cost-lead").textContent = "Seconds to make a case's edit and answer its questions, without the " +
    "unedited model's answers; the processes of a run share its machine." +
    (memory ? " Memory: the process's peak while it did so (on a GPU: what was allocated there)." : "");
}

function scopeScores() {
  byId("scores").replaceChildren();
  byId("scope").hidden = !board().entries.some((e) => e.scores);
  const known = entries().filter((e) => e.scores);
  known.forEach((entry) => histogram(byId("scores"), entry));
  if (!known.length) byId("scores").append(make("p", { class: "empty" }, "No chosen method gives scores."));
}

function choices() {
  byId("backbones").replaceChildren(...table().boards.map((place) => {
    const act = () => {
      chooseBoard(place);
      update();
      byId("backbones").querySelector("[aria-pressed=true]").focus();
    };
    return pressable(place === state.board, act, data.boards[place].backbone);
  }));
  const chosen = byId("backbones").querySelector("[aria-pressed=true]"), picks = chosen.closest(".picks");
  picks.scrollTo({ left: chosen.offsetLeft - picks.offsetLeft - 120 });
  const here = new Set(board().entries.map((e) => e.method));
  byId("methods").replaceChildren(...[...here].sort((a, b) => a - b).map((m) => {
    const act = () => {
      if (!state.hidden.delete(m)) state.hidden.add(m);
      update();
      byId("methods").querySelector(`[data-method="${m}"]`).focus();
    };
    const node = pressable(!state.hidden.has(m), act, dot(m), data.methods[m].name);
    node.dataset.method = m;
    node.style.setProperty("--c", color(m));
    return node;
  }));
}

function update() {
  choices();
  cards();
  overview();
  metricBars();
  byId("scatter").replaceChildren();
  scatter(byId("scatter"), axes.x, axes.y);
  differences();
  scopeScores();
  costs();
  cases();
  const from = runsOf([board()]).join(", ");
  const what = `${board().backbone} · ${table().dataset} · ${board().n} cases · run ${from}`;
  document.querySelectorAll("h2 .of").forEach((node) => { node.textContent = what; });
  remember();
}

function remember() {
  const kept = {
    data: state.table || "", model: board().backbone, find: state.search,
    show: state.filter === "all" ? "" : state.filter,
    hide: [...state.hidden].map((m) => data.methods[m].name).join("~"),
  };
  const query = new URLSearchParams(Object.entries(kept).filter(([, value]) => value !== ""));
  // Keeps the view across a reload; the browser may forbid it for files.
  try { history.replaceState(null, "", "#" + query); } catch (error) { /* then not */ }
}

function restore() {
  const kept = new URLSearchParams(location.hash.slice(1));
  const place = Number(kept.get("data") || 0);
  chooseTable(data.tables[place] ? place : 0, kept.get("model"));
  state.filter = Object.hasOwn(FILTERS, kept.get("show")) ? kept.get("show") : "all";
  state.search = kept.get("find") || "";
  const hide = (kept.get("hide") || "").split("~");
  state.hidden = new Set([...data.methods.keys()].filter((m) => hide.includes(data.methods[m].name)));
  byId("search").value = state.search;
  options(byId("table"), data.tables.map((t, i) => [i, `${t.dataset} (${t.protocol})`]), state.table);
}

function theme(choice) {
  const prefers = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const root = document.documentElement;
  root.dataset.theme = root.style.colorScheme = choice || prefers;
  byId("theme").textContent = root.dataset.theme === "dark" ? "☀" : "☾";
}

function navigation() {
  for (const [id, name] of Object.entries(SECTIONS)) {
    const link = make("a", { href: "#" + id, "data-to": id }, name);
    // Scrolls without touching the address, which keeps the view.
    link.addEventListener("click", (event) => { event.preventDefault(); byId(id).scrollIntoView(); });
    byId("sections").append(link);
  }
  const mark = (current) => document.querySelectorAll("nav a").forEach((link) => {
    if (link.dataset.to !== current) { link.removeAttribute("aria-current"); return; }
    link.setAttribute("aria-current", "true");
    byId("sections").scrollTo({ left: link.offsetLeft - byId("sections").offsetLeft - 60 });
  });
  const watch = new IntersectionObserver((seen) => seen.filter((entry) => entry.isIntersecting)
    .forEach((entry) => mark(entry.target.id)), { rootMargin: "-20% 0px -70% 0px" });
  document.querySelectorAll("main section").forEach((section) => watch.observe(section));
}

function listen() {
  byId("table").addEventListener("input", () => {
    chooseTable(Number(byId("table").value), board().backbone);
    update();
  });
  byId("reference").addEventListener("input", differences);
  for (const axis of ["x", "y"]) {
    byId(axis + "-axis").addEventListener("input", (event) => {
      axes[axis] = event.target.value;
      update();
    });
  }
  byId("search").addEventListener("input", () => {
    Object.assign(state, { search: byId("search").value, shown: 10 });
    cases();
    remember();
  });
  byId("detail").addEventListener("input", () => { state.detail = byId("detail").checked; cases(); });
  byId("more").addEventListener("click", () => { state.shown += 10; cases(); });
  addEventListener("hashchange", () => {
    if (location.hash.includes("model=")) { restore(); update(); }
  });
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    document.querySelectorAll("svg").forEach((svg) => svg.paint());
  });
}

const count = (n, one) => `${n} ${one}${n === 1 ? "" : "s"}`;
theme();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme());
byId("theme").addEventListener("click", () =>
  theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
byId("title").textContent = data.title;
byId("subtitle").textContent = [
  count(data.methods.length, "method"),
  count(new Set(data.boards.map((b) => b.backbone)).size, "base model"),
  count(data.tables.length, "data set"), count(data.runs.length, "run"),
].join(" · ");
missing();
sources();
if (data.boards.length) {
  navigation();
  restore();
  listen();
  update();
} else {
  const useless = ".bar, #cards, #paper, main section:not(#overview):not(#runs)";
  document.querySelectorAll(useless).forEach((node) => { node.hidden = true; });
}
