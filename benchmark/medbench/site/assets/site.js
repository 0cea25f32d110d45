// Sorting, filtering, charts of the tables, copying, light and dark. Without it the tables stand.
(() => {
  "use strict";
  const root = document.documentElement;
  const kept = { // a page from disk may have no storage
    get: () => { try { return localStorage.getItem("theme"); } catch { return null; } },
    set: (value) => { try { localStorage.setItem("theme", value); } catch { /* for this page only */ } },
  };
  if (kept.get()) root.dataset.theme = kept.get();

  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const number = (cell, key) => (key in cell.dataset ? Number(cell.dataset[key]) : NaN);
  const text = (cell) => cell.textContent.trim().replace(/\s+/g, " ");
  const say = (() => {
    let place;
    return (words) => {
      if (!place) {
        place = Object.assign(document.createElement("p"), { className: "skip" });
        place.setAttribute("role", "status");
        document.body.append(place);
      }
      place.textContent = words;
    };
  })();

  function theme() {
    const button = document.getElementById("theme");
    const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
    const name = () => { button.textContent = dark() ? "Light mode" : "Dark mode"; };
    button.addEventListener("click", () => {
      root.dataset.theme = dark() ? "light" : "dark";
      kept.set(root.dataset.theme);
      name();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
    name();
    button.hidden = false;
  }

  function sortable(table) {
    all("thead th", table).forEach((head, column) => {
      const label = text(head);
      const button = Object.assign(document.createElement("button"), { type: "button" });
      if (head.querySelector("a")) button.setAttribute("aria-label", `Sort by ${label}`);
      else button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      const best = label.endsWith("↑") ? "descending" : "ascending";
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        const order = now === "none" ? best : now === "ascending" ? "descending" : "ascending";
        all("thead th", table).forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", order);
        sort(table, column, order, "number" in head.dataset);
        say(`Sorted by ${label}, ${order}.`);
        table.dispatchEvent(new Event("sorted", { bubbles: true }));
      });
    });
  }

  function sort(table, column, order, numeric) {
    const body = table.tBodies[0];
    const sign = order === "ascending" ? 1 : -1;
    const key = (row) => (numeric ? number(row.cells[column], "v") : text(row.cells[column]));
    const rows = [...body.rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => {
      if (!numeric) return sign * a.localeCompare(b, "en", { numeric: true });
      return Number.isNaN(a) - Number.isNaN(b) || sign * (a - b) || 0; // without a value: last
    });
    body.append(...rows.map(([, row]) => row));
  }

  function filters(form) {
    const sections = all("section.ranking");
    const apply = () => {
      const wanted = all("select", form).filter((s) => s.value).map((s) => [s.name, s.value]);
      const badge = wanted.find(([name]) => name === "badge")?.[1];
      const groups = wanted.filter(([name]) => name !== "badge");
      for (const section of sections) {
        section.hidden = groups.some(([name, value]) => section.dataset[name] !== value);
        all("tbody tr[data-badge]", section).forEach((row) => {
          row.hidden = badge !== undefined && row.dataset.badge !== badge;
        });
      }
      const shown = sections.filter((section) => !section.hidden);
      const ids = new Set(shown.map((section) => `#${section.id}`));
      all("section[aria-labelledby=leads] tbody tr").forEach((row) => {
        row.hidden = !ids.has(row.querySelector("th a").getAttribute("href"));
      });
      form.querySelector("output").textContent = `${shown.length} of ${sections.length} rankings shown`;
      charts(shown);
    };
    form.addEventListener("change", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.querySelector("output").textContent = `${sections.length} rankings`;
    form.hidden = false;
  }

  function copying(block) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "copy", textContent: "Copy" });
    button.addEventListener("click", async () => {
      const code = block.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
        say("Copied.");
      } catch {
        getSelection().selectAllChildren(code); // no clipboard here: ready for the keys
        say("Selected: copy it with the keyboard.");
      }
    });
    block.append(button);
  }

  // What a section's first table shows now: a row each, by the metric that it is sorted by.
  function shown(section) {
    const table = section.querySelector("table");
    const heads = all("thead th", table);
    const drawn = heads.filter((head) => head.dataset.metric);
    const head = drawn.find((h) => h.getAttribute("aria-sort") !== "none") ?? drawn[0];
    const at = (name) => heads.findIndex((h) => text(h).startsWith(name));
    const [column, trained, time, rank, margin] = [heads.indexOf(head), ...["Parameters trained", "Training", "Rank", "Margin"].map(at)];
    const value = (row, index) => (index < 0 ? NaN : number(row.cells[index], "v"));
    const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => ({
      name: text(row.cells[0]),
      baseline: row.classList.contains("baseline"),
      value: value(row, column),
      low: number(row.cells[column], "l"),
      high: number(row.cells[column], "h"),
      trained: value(row, trained),
      seconds: value(row, time),
      best: value(row, rank) === 1,
      margin: value(row, margin),
    })).filter((row) => !Number.isNaN(row.value));
    return { rows, label: text(head), metric: head.dataset.metric };
  }

  const three = (value) => value.toFixed(3);
  const halo = { fill: "currentColor", stroke: "var(--paper)", strokeWidth: 4 };
  const colour = (row) => (row.best ? "var(--accent)" : "var(--rest)");

  function put(figure, marks, options, caption, description) {
    const svg = Plot.plot({ className: "chart", style: { background: "none", fontSize: "12px" }, ariaLabel: description, marks, ...options });
    svg.setAttribute("role", "img");
    figure.querySelector(".drawing").replaceChildren(svg);
    figure.querySelector("figcaption").textContent = caption;
    figure.hidden = false;
    return svg;
  }

  function values(figure, { rows, label, metric }) {
    const width = Math.min(figure.clientWidth, 900);
    const effect = metric === "effect";
    const models = rows.filter((row) => !row.baseline);
    const lines = effect ? [] : rows.filter((row) => row.baseline);
    const narrow = width < 560;
    const longest = Math.max(...models.map((row) => row.name.length));
    const points = rows.flatMap((row) => [row.low, row.high, row.value]).concat(effect ? [0, ...rows.map((row) => row.margin)] : []);
    const middle = (Math.min(...points) + Math.max(...points)) / 2;
    const x = { label, grid: true, nice: true, domain: [Math.min(...points), Math.max(...points)] };
    const marks = [
      effect ? Plot.ruleX([0], { stroke: "currentColor" }) : null,
      effect ? Plot.tickX(models, { y: "name", x: "margin", stroke: "var(--warn)", strokeWidth: 2, filter: (row) => row.margin }) : null,
      Plot.ruleX(lines, { x: "value", stroke: "var(--warn)", strokeDasharray: "5 3", strokeWidth: 1.5 }),
      ...lines.map((row, index) => Plot.text([row], {
        x: "value", frameAnchor: "top", dy: -8 - 15 * index, dx: row.value > middle ? -3 : 3,
        text: (d) => `${d.name} ${three(d.value)}`, textAnchor: row.value > middle ? "end" : "start",
        ...halo, fill: "var(--warn)",
      })),
      Plot.ruleY(models, { y: "name", x1: "low", x2: "high", strokeWidth: 2.5, stroke: colour }),
      Plot.dot(models, { y: "name", x: "value", r: 5, fill: colour, stroke: "var(--paper)" }),
      narrow ? Plot.text(models, { y: "name", frameAnchor: "left", text: "name", textAnchor: "start", dy: -13, ...halo }) : null,
    ];
    put(figure, marks, {
      width, x, marginTop: 22 + 15 * lines.length, marginBottom: 42, marginRight: 24,
      height: models.length * (narrow ? 40 : 28) + 22 + 15 * lines.length + 46,
      marginLeft: narrow ? 8 : Math.min(24 + 7.2 * longest, width / 2),
      y: { domain: models.map((row) => row.name), label: null, axis: narrow ? null : "left", tickSize: 0 },
    },
    effect
      ? "Effect of A over B with its 95 % interval, in the order of the table; to the right of 0 in favour of A. Short upright lines: a margin other than 0. The same values stand in the table."
      : `${label} with 95 % intervals over patients, in the order of the table and by the metric that it is sorted by. Blue: rank 1. Dashed: baselines. The same values stand in the table.`,
    `${label}: ${rows.map((row) => `${row.name} ${three(row.value)} from ${three(row.low)} to ${three(row.high)}`).join("; ")}.`);
  }

  // Quality against a cost on a logarithmic axis; nothing at all stands apart at its left.
  function cost(figure, { rows, label }, key, words, tick, steps) {
    const models = rows.filter((row) => !row.baseline && !Number.isNaN(row[key]));
    const some = models.map((row) => row[key]).filter((value) => value > 0);
    if (models.length < 2 || !some.length) { figure.hidden = true; return; }
    figure.hidden = false;
    const width = Math.min(figure.clientWidth, 600);
    // decades on a linear scale, since Plot's logarithmic one leaves ticks unnamed
    const none = Math.log10(Math.min(...some)) - 0.8;
    const data = models.map((row) => ({ ...row, x: row[key] ? Math.log10(row[key]) : none }));
    const zero = some.length < models.length;
    const trivial = rows.filter((row) => row.baseline);
    const span = [Math.min(...data.map((d) => d.x)) - 0.2, Math.max(...data.map((d) => d.x)) + 0.2];
    const ends = [Math.min(...some), Math.max(...some)];
    const round = steps.filter((step) => step >= ends[0] && step <= ends[1]);
    const ticks = (round.length > 1 ? round : ends[1] > 2 * ends[0] ? ends : [ends[1]]).map(Math.log10);
    const options = {
      width, height: 330, marginLeft: 48, marginRight: 16, marginBottom: 44, marginTop: 26,
      x: { domain: span, label: words, ticks: (zero ? [none] : []).concat(ticks), tickFormat: (value) => (zero && value === none ? "0" : tick(10 ** value)) },
      y: { label, grid: true, nice: true },
    };
    const marks = [
      Plot.ruleY(trivial, { y: "value", stroke: "var(--warn)", strokeDasharray: "5 3" }),
      Plot.ruleX(data, { x: "x", y1: "low", y2: "high", stroke: colour, strokeWidth: 1.5, strokeOpacity: 0.7 }),
    ];
    const dots = Plot.dot(data, { x: "x", y: "value", r: 5, fill: colour, stroke: "var(--paper)" });
    const described = `${label} by ${words}: ${models.map((row) => `${row.name} ${three(row.value)} at ${tick(row[key])}`).join("; ")}.`;
    const caption = `${label} by ${words}. Further left is cheaper. Bars: 95 % intervals. Dashed: baselines. Blue: rank 1.`;
    const scales = put(figure, [...marks, dots], options, caption, described);
    // names beside their dots, pushed apart where they would cover each other
    const [sx, sy] = [scales.scale("x"), scales.scale("y")];
    const labels = data.map((d) => {
      const [left, wide] = [sx.apply(d.x), 6.6 * d.name.length];
      const flip = left + wide + 12 > width - 8;
      return { ...d, left: flip ? left - wide - 9 : left + 9, wide, flip, at: sy.apply(d.value) };
    }).sort((a, b) => a.at - b.at);
    labels.forEach((one, index) => {
      for (const other of labels.slice(0, index)) {
        const apart = one.left > other.left + other.wide || other.left > one.left + one.wide;
        if (!apart && one.at < other.at + 13) one.at = other.at + 13;
      }
    });
    const names = labels.map((d) => ({ ...d, y: sy.invert(d.at) }));
    const written = (flip) => Plot.text(names.filter((d) => d.flip === flip), { x: "x", y: "y", text: "name", textAnchor: flip ? "end" : "start", dx: flip ? -9 : 9, fontSize: 11, ...halo });
    const fixed = { ...options, y: { ...options.y, domain: sy.domain, nice: false } };
    put(figure, [...marks, written(false), written(true), dots], fixed, caption, described);
  }

  const powers = [...Array(13).keys()].map((power) => 10 ** power);
  const times = [1, 10, 60, 600, 3600, 36000, 360000, 3600000];
  const size = (value) => d3.format(".3~s")(value).replace("G", " G").replace("M", " M").replace("k", " k");
  const duration = (value) => (value < 100 ? `${+value.toPrecision(2)} s` : value < 6000 ? `${Math.round(value / 60)} min` : `${(value / 3600).toFixed(1)} h`);

  function charts(sections) {
    if (!window.Plot) return;
    for (const section of sections) {
      const place = section.querySelector(".charts");
      if (!place) continue;
      place.hidden = false;
      const data = shown(section);
      place.hidden = !data.rows.some((row) => !row.baseline);
      if (place.hidden) continue;
      for (const figure of all("figure", place)) {
        const kind = figure.dataset.chart;
        if (kind === "values") values(figure, data);
        if (kind === "trained") cost(figure, data, "trained", "trained parameters", size, powers);
        if (kind === "time") cost(figure, data, "seconds", "training time", duration, times);
      }
    }
  }

  document.addEventListener("DOMContentLoaded", () => {
    theme();
    all("table[data-sortable]").forEach(sortable);
    all("form.filters").forEach(filters);
    all("pre.command").forEach(copying);
    const visible = () => all("section.ranking").filter((section) => !section.hidden);
    charts(visible());
    document.addEventListener("sorted", (event) => {
      const section = event.target.closest("section.ranking");
      if (section) charts([section]);
    });
    let width = innerWidth;
    let waiting;
    addEventListener("resize", () => {
      if (innerWidth === width) return;
      width = innerWidth;
      clearTimeout(waiting);
      waiting = setTimeout(() => charts(visible()), 150);
    });
  });
})();
