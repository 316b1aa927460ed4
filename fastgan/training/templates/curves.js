// Curves: line charts in SVG of the numbers in #data, as fastgan/training/curves.py made them.
"use strict";
(() => {
  const source = document.getElementById("data");
  if (!source) return;
  const HEIGHT = 230, LEFT = 66, RIGHT = 22, TOP = 10, BOTTOM = 38, COLOURS = 6;
  const HEADINGS = { figures: "Measured", training: "Training", machine: "Cost" };
  const bar = document.querySelector(".curves .bar"), smoothing = document.getElementById("smoothing");
  const spikes = document.getElementById("spikes"), log = document.getElementById("log");
  const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

  const number = (value) =>
    Math.abs(value) >= 1e6 || (value && Math.abs(value) < 1e-3)
      ? value.toExponential(2) : Number(value.toPrecision(4)).toLocaleString("en", { maximumFractionDigits: 6 });
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  function svg(name, attributes, text) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function html(name, className, text) {
    const element = document.createElement(name);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  // What share `q` of the sorted values lies below.
  function quantile(sorted, q) {
    const at = q * (sorted.length - 1), below = Math.floor(at), above = Math.ceil(at);
    return sorted[below] + (sorted[above] - sorted[below]) * (at - below);
  }

  // The range that is drawn: of all values, or, where some lie far outside of what nearly all need, of that.
  function range(series, whole) {
    const sorted = (values) => values.sort((a, b) => a - b);
    const values = sorted(series.flatMap((line) => line.values));
    const lows = sorted(series.flatMap((line) => line.low ?? line.values));
    const highs = sorted(series.flatMap((line) => line.high ?? line.values));
    const low = Math.min(quantile(values, 0.02), quantile(lows, 0.1));
    const high = Math.max(quantile(values, 0.98), quantile(highs, 0.9));
    const least = lows[0], most = highs[highs.length - 1], span = high - low;
    const from = whole || !span || least >= low - span ? least : low - span / 10;
    const to = whole || !span || most <= high + span ? most : high + span / 10;
    if (from === to) return [from - (Math.abs(from) / 10 || 1), to + (Math.abs(to) / 10 || 1)];
    return [from, to];
  }

  // Round values between two, about `count` of them.
  function ticks(from, to, count) {
    const rough = (to - from) / count, power = 10 ** Math.floor(Math.log10(rough));
    const size = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
    const found = [];
    for (let i = Math.ceil(from / size - 1e-9); i * size <= to + size * 1e-9; i++) found.push(Number((i * size).toPrecision(12)));
    return found;
  }

  function logTicks(from, to) {
    const found = [];
    for (let e = Math.floor(Math.log10(from)); e <= Math.log10(to); e++)
      for (const n of [1, 2, 5]) if (n * 10 ** e >= from && n * 10 ** e <= to) found.push(n * 10 ** e);
    const decades = found.filter((value) => Math.abs(Math.log10(value) % 1) < 1e-9);
    return found.length > 6 && decades.length > 1 ? decades : found.length > 1 ? found : [from, to];
  }

  // Means under a Gaussian of standard deviation `width`, in steps: no lag, and uneven spacing does not matter.
  function smooth(steps, values, width) {
    if (!width) return values;
    return values.map((_, i) => {
      let sum = 0, weights = 0;
      for (const direction of [-1, 1])
        for (let j = direction < 0 ? i : i + 1; j >= 0 && j < steps.length; j += direction) {
          const away = (steps[j] - steps[i]) / width;
          if (Math.abs(away) > 3) break;
          const weight = Math.exp(-away * away / 2);
          sum += weight * values[j];
          weights += weight;
        }
      return sum / weights;
    });
  }

  // Index of the step that is nearest.
  function nearest(steps, step) {
    let low = 0, high = steps.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (steps[middle] <= step) low = middle; else high = middle;
    }
    return step - steps[low] <= steps[high] - step ? low : high;
  }

  class Chart {
    constructor({ title, unit, kind, about, series }) {
      this.kind = kind;
      this.unit = unit;
      this.series = series.filter((line) => line.steps.length);
      this.lost = series.reduce((sum, line) => sum + line.lost, 0);
      this.element = html("figure", "chart");
      this.heading = html("h4", "", title);
      this.note = html("small");
      this.heading.append(" ", this.note);
      this.legend = html("figcaption", "legend");
      this.readings = series.map((line, i) => {
        const entry = html("span"), value = html("b");
        entry.style.setProperty("--c", `var(--s${i % COLOURS})`);
        entry.append(`${line.name} `, value);
        this.legend.append(entry);
        line.colour = `--c:var(--s${i % COLOURS})`;
        line.dash = i < COLOURS ? "" : "5 3";
        return value;
      });
      this.all = series;
      this.outside = html("p", "about");
      this.element.append(this.heading, html("p", "meaning", about), this.legend, this.outside);
    }

    draw() {
      const width = Math.max(240, this.element.clientWidth - 24);
      this.svg?.remove();
      this.svg = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": this.heading.textContent });
      this.outside.before(this.svg);
      this.say(0);
      if (!this.series.length) return this.read(null);
      const steps = this.series.flatMap((line) => [line.steps[0], line.steps[line.steps.length - 1]]);
      const [from, to] = [Math.min(...steps), Math.max(...steps)];
      const [least, most] = range(this.series, spikes.checked);
      const logarithmic = log.checked && this.series.every((line) => (line.low ?? line.values).every((value) => value > 0));
      const bend = logarithmic ? Math.log : (value) => value;
      const bottom = logarithmic ? Math.max(least, Math.min(...this.series.flatMap((line) => line.low ?? line.values))) : least;
      this.x = (step) => LEFT + (width - LEFT - RIGHT) * (to === from ? 0.5 : (step - from) / (to - from));
      const share = (value) => (bend(value) - bend(bottom)) / (bend(most) - bend(bottom));
      const y = (value) => HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * clamp(share(clamp(value, bottom, most)), 0, 1);
      this.stepAt = (x) => from + (to - from) * clamp((x - LEFT) / (width - LEFT - RIGHT), 0, 1);

      this.axes(width, from, to, logarithmic ? logTicks(bottom, most) : ticks(bottom, most, 5), y);
      this.say(this.spikes(y, bottom, most));
      this.lines(y, bottom, most, to - from);
      this.mark = svg("line", { class: "shown-step", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
      this.cursor = svg("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
      this.svg.append(this.mark, this.cursor);
      this.svg.addEventListener("pointermove", (event) => read(this.stepAt(this.place(event))));
      this.svg.addEventListener("pointerleave", () => read(null));
      this.svg.addEventListener("click", (event) =>
        document.dispatchEvent(new CustomEvent("pick", { detail: this.stepAt(this.place(event)) })));
      this.read(null);
      this.point(shownStep);
    }

    // What the chart does not show.
    say(outside) {
      const said = [outside && `${outside} beyond the range`, this.lost && `${this.lost} not finite`];
      this.outside.textContent = said.filter(Boolean).join(", ");
    }

    place(event) {
      const box = this.svg.getBoundingClientRect();
      return ((event.clientX - box.left) / box.width) * this.svg.viewBox.baseVal.width;
    }

    axes(width, from, to, values, y) {
      const floor = HEIGHT - BOTTOM;
      for (const value of values) {
        this.svg.append(svg("path", { class: "grid", d: `M${LEFT} ${y(value)}H${width - RIGHT}` }));
        this.svg.append(svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, number(value)));
      }
      const marks = from === to ? [from] : ticks(from, to, Math.max(5, Math.round(width / 90))).filter(Number.isInteger);
      for (const step of marks) {
        this.svg.append(svg("path", { class: "grid", d: `M${this.x(step)} ${floor}v4` }));
        this.svg.append(svg("text", { x: this.x(step), y: floor + 16, "text-anchor": "middle" },
          step >= 1e5 ? compact.format(step) : step.toLocaleString("en")));
      }
      const middle = (TOP + floor) / 2;
      this.svg.append(svg("text", { x: (LEFT + width - RIGHT) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, "step"));
      this.svg.append(svg("text", { x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }, this.unit));
    }

    // All lines, above what they reach or, unless the line is that already, the values as they are.
    lines(y, bottom, most, across) {
      const width = this.kind === "figures" ? 0 : (across * Number(smoothing.value)) / 100;
      const above = [];
      for (const { steps, values, low = values, high = values, colour: style, dash } of this.series) {
        const path = (some) => some.map((value, i) => `${this.x(steps[i]).toFixed(1)} ${y(value).toFixed(1)}`);
        // Spikes are cut before smoothing: one of them would lift its whole neighbourhood.
        const calm = smooth(steps, values.map((value) => clamp(value, bottom, most)), width);
        if (width || low !== values) {
          const band = [...path(high), ...path(low).reverse()];
          this.svg.append(svg("path", { class: "raw", style, d: `M${band.join("L")}Z` }));
        }
        above.push(svg("path", { class: "smooth", style, d: `M${path(calm).join("L")}`, "stroke-dasharray": dash }));
        if (steps.length <= 30)
          steps.forEach((step, i) => above.push(svg("circle", { class: "dot", style, cx: this.x(step), cy: y(calm[i]), r: 2.4 })));
      }
      this.svg.append(...above);
    }

    // Marks at the edge where values lie outside, and returns how many.
    spikes(y, bottom, most) {
      let count = 0;
      for (const { steps, values, low = values, high = values, colour: style } of this.series)
        steps.forEach((step, i) => {
          for (const [beyond, edge, tip] of [[high[i] > most, TOP, -5], [low[i] < bottom, HEIGHT - BOTTOM, 5]])
            if (beyond) {
              count++;
              this.svg.append(svg("path", { class: "spike", style, d: `M${this.x(step) - 3} ${edge}h6l-3 ${tip}z` }));
            }
        });
      return count;
    }

    // The values at a step in the legend; null: the last ones.
    read(step) {
      this.all.forEach((line, i) => {
        const at = step === null ? line.steps.length - 1 : nearest(line.steps, step);
        this.readings[i].textContent = line.steps.length ? this.reading(line, at) : "";
      });
      const at = step === null || !this.series.length ? null : this.series[0].steps[nearest(this.series[0].steps, step)];
      this.note.textContent = at === null ? "" : `step ${at.toLocaleString("en")}`;
      this.cursor?.setAttribute("visibility", at === null ? "hidden" : "visible");
      if (at !== null) for (const end of ["x1", "x2"]) this.cursor.setAttribute(end, this.x(at));
    }

    reading(line, at) {
      const reach = line.low && line.low[at] !== line.high[at] ? ` (${number(line.low[at])} to ${number(line.high[at])})` : "";
      return number(line.values[at]) + reach;
    }

    // Where the samples are that are shown.
    point(step) {
      if (!this.mark) return;
      const x = step === null ? -1 : this.x(step), width = this.svg.viewBox.baseVal.width;
      this.mark.setAttribute("visibility", x >= LEFT && x <= width - RIGHT ? "visible" : "hidden");
      for (const end of ["x1", "x2"]) this.mark.setAttribute(end, x);
    }
  }

  let shownStep = null;
  document.addEventListener("samples", ({ detail }) => {
    shownStep = detail;
    charts.forEach((chart) => chart.point(detail));
  });

  const charts = JSON.parse(source.textContent).map((chart) => new Chart(chart));
  const read = (step) => charts.forEach((chart) => chart.read(step));
  const place = document.querySelector(".charts");
  charts.forEach((chart, i) => {
    if (chart.kind !== charts[i - 1]?.kind) place.append(html("h3", "", HEADINGS[chart.kind]));
    place.append(chart.element);
  });
  function draw() {
    document.getElementById("width").textContent = `${smoothing.value} %`;
    charts.forEach((chart) => chart.draw());
  }
  bar.hidden = false;
  for (const control of [smoothing, spikes, log]) control.addEventListener("input", draw);
  let width = place.clientWidth;
  draw();
  new ResizeObserver(() => requestAnimationFrame(() => {
    if (place.clientWidth === width) return;
    width = place.clientWidth;
    draw();
  })).observe(place);
})();
