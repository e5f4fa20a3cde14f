// Makes a study's page live: its switches, and its figures with tips. What it draws comes from the
// JSON that stands in the page; colours and fonts are the page's own.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const SYMBOLS = ["circle", "square", "triangle", "diamond", "wye", "plus", "times"];
  const state = { chosenCase: data.cases[0]?.name, redraw: [] };

  // Numbers as the page's tables write them.
  const scientific = (value) => (value ? d3.format(".3~e")(value).replace("e+", "e") : "0");
  const WRITE = {
    flops: scientific,
    tokens: (value) => (value < 1e6 ? d3.format(",.0f")(value) : scientific(value)),
    time: d3.format(".3~g"),
  };

  function element(name, properties = {}, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  // A group of radio buttons, drawn as one row; `change` gets the name of the chosen one.
  let groups = 0;
  function choices(title, options, change) {
    groups += 1;
    const group = `choice-${groups}`;
    const set = element("fieldset", { className: "choices" }, element("legend", {}, title));
    options.forEach((option, n) => {
      const input = element("input", { type: "radio", name: group, value: option.name });
      input.checked = n === 0;
      input.addEventListener("change", () => change(option.name));
      set.append(element("label", {}, input, element("span", {}, option.label)));
    });
    return set;
  }

  // Who pays for the teacher: what is told of one case alone, and the signs of the matrices.
  function showCase(name) {
    state.chosenCase = name;
    for (const one of document.querySelectorAll("[data-case]")) {
      one.hidden = one.dataset.case !== name;
    }
    for (const cell of document.querySelectorAll("[data-cases]")) {
      const told = JSON.parse(cell.dataset.cases)[name];
      if (!told) continue;
      cell.querySelector(".sign").textContent = told[0];
      cell.querySelector(".sentence").textContent = told[1];
      cell.setAttribute("aria-label", told[1]);
    }
    for (const redraw of state.redraw) redraw();
  }

  // Put a live figure in the place of a static one, drawn again whenever its width changes.
  function live(name, controls, draw) {
    const figure = document.querySelector(`figure[data-figure="${name}"]`);
    if (!figure) return;
    const box = element("div", { className: "live" });
    const still = figure.querySelector(".still");
    still.before(...controls, box);
    let width = 0;
    const redraw = () => {
      if (!width) return;
      const drawn = draw(width);
      // One picture with one name: its groups have no role that takes a name of their own.
      drawn.setAttribute("role", "img");
      for (const group of drawn.querySelectorAll("g[aria-label]")) {
        group.dataset.mark = group.getAttribute("aria-label");
        group.removeAttribute("aria-label");
      }
      box.replaceChildren(drawn);
    };
    state.redraw.push(redraw);
    new ResizeObserver((entries) => {
      const now = Math.floor(entries[0].contentRect.width);
      if (Math.abs(now - width) < 2) return;
      width = now;
      redraw();
    }).observe(box);
    figure.classList.add("is-live");
  }

  const look = (width, label) => ({
    width,
    style: { background: "none", color: "var(--ink)", fontFamily: "var(--sans)", fontSize: "12px" },
    ariaLabel: label,
  });
  const tip = { fill: "var(--page)", stroke: "var(--muted)", fontSize: 12, maxRadius: 60 };
  const grid = { grid: true, labelAnchor: "center", labelArrow: "none" };

  // A held-out loss along FLOPs, tokens or time: every seed light, the mean bold.
  function learning(figure) {
    const chosen = { axis: figure.axes[0].name, part: "whole" };
    const redraw = () => state.redraw.forEach((one) => one());
    const controls = [
      choices("Along", figure.axes, (axis) => {
        chosen.axis = axis;
        redraw();
      }),
      choices(
        "Of the budget",
        [
          { name: "whole", label: "the whole" },
          { name: "late", label: "its second half" },
        ],
        (part) => {
          chosen.part = part;
          redraw();
        },
      ),
    ];
    live(figure.name, controls, (width) => {
      const axis = figure.axes.find((one) => one.name === chosen.axis);
      const write = WRITE[axis.kind];
      const isShown = (point) => chosen.part === "whole" || point.share >= 0.499;
      const at = { x: axis.name, y: "loss" };
      const marks = [];
      const means = [];
      for (const arm of figure.arms) {
        const colour = `var(--arm-${arm.colour})`;
        for (const seed of arm.seeds) {
          const points = seed.filter(isShown);
          marks.push(Plot.line(points, { ...at, stroke: colour, strokeOpacity: 0.4, strokeWidth: 1 }));
        }
        const points = arm.mean.filter(isShown);
        const symbol = SYMBOLS[arm.marker];
        marks.push(Plot.line(points, { ...at, stroke: colour, strokeWidth: 2.2 }));
        marks.push(Plot.dot(points, { ...at, fill: colour, stroke: colour, symbol, r: 3.5 }));
        means.push(...points.map((point) => ({ ...point, arm: arm.name })));
      }
      const [low, high] = d3.extent(means, (point) => point.loss);
      const levels = figure.levels.filter(
        (level) => chosen.part === "whole" || (level.loss >= low && level.loss <= high),
      );
      marks.push(Plot.ruleY(levels, { y: "loss", stroke: "var(--muted)", strokeDasharray: "5 3" }));
      marks.push(
        Plot.text(levels, {
          y: "loss",
          text: "name",
          frameAnchor: "right",
          textAnchor: "end",
          dy: -7,
          fill: "var(--muted)",
          stroke: "var(--page)",
          strokeWidth: 4,
        }),
      );
      const title = (point) =>
        `${point.arm}\n${d3.format(".3f")(point.loss)} nats\n${write(point[axis.name])} ${axis.unit}`;
      marks.push(Plot.tip(means, Plot.pointer({ ...at, title, ...tip })));
      return Plot.plot({
        ...look(width, `${figure.loss} against ${axis.label}`),
        height: Math.max(260, Math.min(380, width * 0.55)),
        marginLeft: 48,
        marginBottom: 46,
        x: { ...grid, labelOffset: 36, label: axis.label, tickFormat: write, ticks: width < 480 ? 3 : 6 },
        y: { ...grid, label: "nats" },
        marks,
      });
    });
  }

  // What the mean run of each arm spends by part: FLOPs, of which a case charges some, or time.
  function spending(figure) {
    const chosen = { measure: "flops" };
    const controls = [
      choices("In", figure.measures, (measure) => {
        chosen.measure = measure;
        state.redraw.forEach((one) => one());
      }),
    ];
    live("spending", controls, (width) => {
      const measure = figure.measures.find((one) => one.name === chosen.measure);
      const write = WRITE[measure.kind];
      const charged = figure.charged[state.chosenCase] ?? figure.charged[""];
      const isCharged = (row) => measure.kind !== "flops" || charged.includes(row.part);
      // What is charged comes first; of what is not, no more is drawn than of the longest that is.
      const rows = d3.sort(measure.rows, (row) => !isCharged(row));
      const sums = d3.rollup(rows.filter(isCharged), (own) => d3.sum(own, (row) => row.value), (row) => row.arm);
      const limit = 2 * Math.max(measure.budget ?? 0, ...sums.values());
      const all = d3.rollup(rows, (own) => d3.sum(own, (row) => row.value), (row) => row.arm);
      const whole = d3.max(all.values());
      const edge = Math.min(whole, limit);
      const longest = d3.max(figure.arms, (arm) => arm.length);
      const marginLeft = Math.min(12 + 7 * longest, width * 0.4);
      const at = { y: "arm", x: "value" };
      const title = (row) =>
        `${row.arm}: ${row.label}\n${write(row.value)} ${measure.unit}` +
        (isCharged(row) ? "" : "\nnot charged");
      const marks = [
        Plot.barX(rows, {
          ...at,
          fill: "colour",
          fillOpacity: (row) => (isCharged(row) ? 1 : 0.35),
          stroke: "var(--page)",
          strokeWidth: 0.6,
          clip: true,
        }),
        Plot.text(
          rows,
          Plot.stackX({
            ...at,
            text: (row) => {
              const share = row.value / (measure.budget ?? sums.get(row.arm));
              // A share is written where there is room for it.
              const pixels = (row.value / edge) * (width - marginLeft);
              return isCharged(row) && pixels > 48 ? d3.format(".1%")(share) : "";
            },
            fill: "#111111",
          }),
        ),
        Plot.tip(rows, Plot.pointer(Plot.stackX({ ...at, title, ...tip, maxRadius: Infinity }))),
      ];
      // A bar that goes on beyond the plot says how far.
      const cut = [...all].filter(([, value]) => value > edge * 1.000001);
      marks.push(
        Plot.text(cut, {
          y: ([arm]) => arm,
          x: edge,
          text: ([, value]) => `→ ${write(value)}`,
          textAnchor: "end",
          dx: -6,
          fill: "var(--ink)",
        }),
      );
      if (measure.budget) {
        marks.push(Plot.ruleX([measure.budget], { stroke: "var(--ink)", strokeDasharray: "4 2" }));
      }
      return Plot.plot({
        ...look(width, `${measure.label} of a run by part, for each arm`),
        height: 34 * figure.arms.length + 60,
        marginLeft,
        marginBottom: 46,
        x: {
          ...grid,
          labelOffset: 36,
          label: measure.label,
          domain: [0, edge],
          tickFormat: write,
          ticks: width < 480 ? 3 : 6,
        },
        y: { domain: figure.arms, label: null, tickSize: 0 },
        marks,
      });
    });
  }

  const place = document.getElementById("case-choice");
  if (place && data.cases.length > 1) {
    place.append(choices("Who pays for the teacher", data.cases, showCase));
    place.hidden = false;
  }
  for (const figure of data.learning) learning(figure);
  if (data.spending) spending(data.spending);
})();
