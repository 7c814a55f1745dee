const pen = document.createElement("canvas").getContext("2d");

function textWidth(text) {
  pen.font = "12.5px system-ui, sans-serif";
  return pen.measureText(text).width;
}

function clip(text, width) {
  if (textWidth(text) <= width) return text;
  while (text.length > 3 && textWidth(text + "…") > width) text = text.slice(0, -1);
  return text + "…";
}

// Drawn at the size it is shown in, so that text keeps its size on a phone.
function chart(parent, height, label, paint) {
  const svg = draw("svg", { role: "group", "aria-label": label, height });
  parent.append(svg);
  svg.paint = () => {
    const width = Math.max(220, svg.getBoundingClientRect().width || parent.clientWidth || 320);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.replaceChildren();
    paint(svg, width);
  };
  svg.paint();
}

function chartHead(title, note) {
  return make("div", { class: "chart-head" }, make("h3", {}, title), make("span", {}, note || ""));
}

// One row a method. rows: {entry, value, low, high, text, strong, paper, tip}
function bars(parent, title, note, rows, most) {
  const card = make("div", { class: "card" }, chartHead(title, note));
  parent.append(card);
  const left = Math.min(130, Math.max(...rows.map((r) => textWidth(methodName(r.entry)))) + 10);
  const right = Math.max(...rows.map((r) => textWidth(r.text))) + 12;
  const step = 25, thick = 13;
  chart(card, rows.length * step + 4, title, (svg, width) => {
    const x = (v) => left + (v / most) * (width - left - right);
    for (const part of [0, 0.25, 0.5, 0.75, 1]) {
      const at = x(part * most);
      const name = part ? "axis" : "base";
      svg.append(draw("line", { class: name, x1: at, x2: at, y1: 0, y2: rows.length * step }));
    }
    rows.forEach((row, i) => {
      const y = i * step + step / 2;
      const group = draw("g", { tabindex: 0, role: "img" });
      const bold = row.strong ? " strong" : "";
      group.append(
        draw("rect", { x: 0, y: i * step, width, height: step, fill: "transparent" }),
        draw("text", { x: left - 8, y: y + 4, "text-anchor": "end", class: bold },
          clip(methodName(row.entry), left - 10)),
        draw("rect", {
          class: "mark", x: x(0), y: y - thick / 2, height: thick, rx: 2.5,
          width: Math.max(1, x(row.value) - x(0)), fill: color(row.entry.method),
        }),
        draw("text", { x: width, y: y + 4, "text-anchor": "end", class: "value" + bold }, row.text));
      if (typeof row.low === "number") {
        const [a, b] = [x(row.low), x(row.high)];
        const d = `M${a} ${y - 4}v8M${a} ${y}H${b}M${b} ${y - 4}v8`;
        group.append(draw("path", { class: "whisker", fill: "none", d }));
      }
      if (row.paper !== undefined) {
        group.append(draw("path", { class: "paper", d: `M${x(row.paper)} ${y - 6}l5 6l-5 6l-5 -6z` }));
      }
      svg.append(withTip(group, row.tip));
    });
  });
}

const SHAPES = [
  (r) => `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`,
  (r) => `M${-r} ${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
  (r) => `M0 ${-1.35 * r}l${1.35 * r} ${1.35 * r}l${-1.35 * r} ${1.35 * r}l${-1.35 * r} ${-1.35 * r}z`,
  (r) => `M0 ${-1.25 * r}l${1.25 * r} ${2.2 * r}h${-2.5 * r}z`,
  (r) => `M0 ${1.25 * r}l${1.25 * r} ${-2.2 * r}h${-2.5 * r}z`,
];

function marker(name, method, size, x, y) {
  const d = SHAPES[method % SHAPES.length](size);
  return draw("path", { class: name, d, transform: `translate(${x} ${y})`, fill: color(method) });
}

function scatter(parent, across, up) {
  const points = entries().filter((e) => !isBase(e) && e.values[across] && e.values[up]);
  if (!points.length) {
    parent.append(make("p", { class: "empty" }, "None of the chosen methods has both."));
    return;
  }
  const [x0, x1] = bounds(points, across), [y0, y1] = bounds(points, up);
  const height = Math.max(340, 96 + points.length * 20);
  chart(parent, height, metricName(up) + " against " + metricName(across), (svg, width) => {
    const long = Math.max(...points.map((e) => textWidth(methodName(e)))) + 26;
    const box = { left: 44, right: width - Math.min(long, width * 0.36), top: 30, bottom: height - 42 };
    const x = (v) => box.left + ((v - x0) / (x1 - x0 || 1)) * (box.right - box.left - 14);
    const y = (v) => box.bottom - ((v - y0) / (y1 - y0 || 1)) * (box.bottom - box.top - 8);
    for (const tick of ticks(x0, x1, width < 520 ? 4 : 7)) {
      const at = x(tick);
      svg.append(draw("line", { class: "axis", x1: at, x2: at, y1: box.top, y2: box.bottom }),
        draw("text", { class: "dim", x: at, y: box.bottom + 17, "text-anchor": "middle" }, tick));
    }
    for (const tick of ticks(y0, y1, 6)) {
      const at = y(tick);
      svg.append(draw("line", { class: "axis", x1: box.left, x2: box.right, y1: at, y2: at }),
        draw("text", { class: "dim", x: box.left - 8, y: at + 4, "text-anchor": "end" }, tick));
    }
    svg.append(draw("text", { class: "dim", x: 0, y: 12 }, "↑ " + metricName(up)),
      draw("text", { class: "dim", x: box.right, y: height - 6, "text-anchor": "end" },
        metricName(across) + " →"));
    const places = points.map((e) => ({ e, px: x(e.values[across][0]), py: y(e.values[up][0]) }));
    for (const { e, px, py, ly } of spread(places, box)) {
      const vx = e.values[across], vy = e.values[up];
      const said = [[across, vx], [up, vy]]
        .map(([metric, v]) => `${metricName(metric)} ${number(v[0])} (${range(v)})`);
      const group = draw("g", { tabindex: 0, role: "img" },
        draw("path", { class: "axis", fill: "none", d: `M${px} ${py}L${box.right + 4} ${ly}h6` }));
      if (vx[1] !== null && vy[1] !== null) {
        const d = `M${x(vx[1])} ${py}H${x(vx[2])}M${px} ${y(vy[1])}V${y(vy[2])}`;
        group.append(draw("path", { class: "cross", fill: "none", stroke: color(e.method), d }));
      }
      const label = clip(methodName(e), width - box.right - 26);
      group.append(
        marker("mark halo", e.method, 6.5, px, py),
        marker(null, e.method, 4, box.right + 17, ly),
        draw("text", { class: "halo", x: box.right + 26, y: ly + 4 }, label));
      svg.append(withTip(group, [methodName(e), ...said].join("\n")));
    }
  });
}

function bounds(points, metric) {
  const values = points.flatMap((e) => e.values[metric].slice(0, 3)).filter((v) => v !== null);
  const low = Math.min(...values), high = Math.max(...values);
  const pad = Math.max(2, (high - low) * 0.08);
  return [Math.max(0, low - pad), Math.min(100, high + pad)];
}

// Labels stand to the right in the order of their points, pushed apart where they would touch.
function spread(points, box) {
  points.sort((a, b) => a.py - b.py || a.px - b.px);
  let floor = -Infinity;
  for (const p of points) { p.ly = Math.max(p.py, floor + 19); floor = p.ly; }
  const over = Math.max(0, floor - (box.bottom - 4));
  let roof = box.top - 13;
  for (const p of points) { p.ly = Math.max(p.ly - over, roof + 19); roof = p.ly; }
  return points;
}

function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const step = [0.5, 1, 2, 5, 10, 20, 25].find((s) => s >= rough) || 25;
  const found = [];
  for (let t = Math.ceil(low / step) * step; t <= high + 1e-9; t += step) {
    found.push(Math.round(t * 10) / 10);
  }
  return found;
}

// In scope above the line, out of scope below it.
function histogram(parent, entry) {
  const { edges, threshold } = entry.scores;
  const sides = [
    ["in scope", entry.scores.in, "var(--in)"],
    ["out of scope", entry.scores.out, "var(--out)"],
  ];
  const share = (side, count) => (side.n ? count / side.n : 0);
  const most = Math.max(0.001, ...sides.flatMap(([, side]) => side.counts.map((c) => share(side, c))));
  const total = sides[0][1].n + sides[1][1].n;
  const card = make("div", { class: "card" }, chartHead(methodName(entry), total + " questions"));
  parent.append(card);
  const said = sides.map(([name, side]) => `${name}: ${side.n} questions` +
    (side.at === null ? "" : `, ${number(side.at)} % from the threshold on`));
  chart(card, 176, `${methodName(entry)} scope scores. ${said.join("; ")}`, (svg, width) => {
    const x = (v) => 6 + ((v - edges[0]) / (edges[1] - edges[0])) * (width - 12);
    const middle = 80, bin = (edges[1] - edges[0]) / sides[0][1].counts.length;
    sides.forEach(([name, side, fill], which) => side.counts.forEach((count, i) => {
      if (!count) return;
      // Few questions stay visible beside many: height goes with the square root.
      const height = Math.max(2, Math.sqrt(share(side, count) / most) * 68);
      const low = edges[0] + i * bin, left = x(low) + 0.5;
      const bar = draw("rect", {
        x: left, width: Math.max(1, x(low + bin) - left - 0.5), rx: 1.5, height, fill,
        y: which ? middle + 1 : middle - height,
      });
      const span = low.toFixed(2) + " to " + (low + bin).toFixed(2);
      const part = `${number(100 * share(side, count))} % (${count} questions)`;
      svg.append(withTip(bar, `${name}\nscore ${span}\n${part}`));
    }));
    svg.append(draw("line", { class: "base", x1: 0, x2: width, y1: middle + 0.5, y2: middle + 0.5 }));
    for (const tick of scoreTicks(edges)) {
      const anchor = tick === edges[0] ? "start" : tick === edges[1] ? "end" : "middle";
      svg.append(draw("text", { class: "dim", x: x(tick), y: 172, "text-anchor": anchor }, tick));
    }
    if (threshold === null) return;
    const at = x(threshold), late = at > width * 0.72;
    const place = { x: at + (late ? -5 : 5), y: 10, "text-anchor": late ? "end" : "start" };
    svg.append(draw("line", { class: "threshold", x1: at, x2: at, y1: 0, y2: 156 }),
      draw("text", { class: "halo", ...place }, "threshold " + Math.round(threshold * 1000) / 1000));
  });
  card.append(make("div", { class: "legend" }, sides.map(([name, side, fill]) => {
    const reach = side.at === null ? [] : [": ", make("b", {}, number(side.at) + " %"), " reach the edit"];
    return make("span", {}, make("i", { "--c": fill }), name, reach);
  })));
}

function scoreTicks([low, high]) {
  const round = [-1, -0.5, 0, 0.25, 0.5, 0.75, 1].filter((t) => t >= low && t <= high);
  return high - low > 1.2 ? round.filter((t) => t % 0.5 === 0) : round;
}
