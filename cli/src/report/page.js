"use strict";
// Follows the pointer, smooths again, shows and hides runs. The page is complete without it.
(() => {
  const data = JSON.parse(document.getElementById("figures").textContent);
  const [first, last] = data.steps;
  const figures = (value, digits) => {
    const size = Math.abs(value);
    if (size === 0) return "0";
    if (size < 1e-3 || size >= 1e6) return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
    return value.toFixed(Math.min(6, Math.max(0, digits - 1 - Math.floor(Math.log10(size)))));
  };
  const three = (value) => {
    const size = Math.abs(value);
    return value === 0 ? "0" : value.toFixed(size < 0.9995 ? 3 : size < 9.995 ? 2 : size < 99.95 ? 1 : 0);
  };
  const bytes = (value) => {
    const units = ["B", "KB", "MB", "GB", "TB"];
    let at = 0;
    while (value >= 999.5 && at < 4) { value /= 1000; at += 1; }
    return value.toFixed(at === 0 ? 0 : value < 9.995 ? 2 : value < 99.95 ? 1 : 0) + " " + units[at];
  };
  const time = (ms) => {
    const s = ms / 1000;
    if (s > 0 && s < 0.009995) return ms.toFixed(2) + " ms";
    if (s < 0.9995) return ms.toFixed(0) + " ms";
    if (s < 119.95) return s.toFixed(s < 9.995 ? 2 : 1) + " s";
    return s < 7197 ? (s / 60).toFixed(1) + " min" : (s / 3600).toFixed(1) + " h";
  };
  const units = {
    plain: (value) => figures(value, 4), bytes, ms: time, tps: three,
    celsius: (value) => value.toFixed(0) + " °C", watts: (value) => value.toFixed(0) + " W",
  };
  const grouped = (step) => Math.round(step).toLocaleString("en");

  const charts = data.charts.map((chart) => {
    const figure = document.getElementById("chart-" + chart.id);
    return Object.assign(chart, { figure, svg: figure.querySelector("svg"), cross: figure.querySelector(".cross") });
  });
  const legends = new Map();
  for (const cell of document.querySelectorAll("[data-value]")) {
    const chart = cell.closest("figure").dataset.chart;
    legends.set(chart + " " + cell.dataset.value, { cell, last: cell.textContent });
  }

  // The running mean of the page's maker: each point weighs less the more steps lie behind it.
  const smoothed = (points, steps) => {
    if (steps <= 0 || points.length === 0) return points;
    let before = points[0][0] - (points.length > 1 ? points[1][0] - points[0][0] : 1), sum = 0, weight = 0;
    return points.map(([step, value]) => {
      const keep = Math.exp(-(step - before) / steps);
      before = step;
      sum = sum * keep + value * (1 - keep);
      weight = weight * keep + (1 - keep);
      return [step, weight > 0 ? sum / weight : value];
    });
  };
  const middle = (run, at) => run.first + at * run.width + (run.width - 1) / 2;
  const x = (step) => data.left + ((step - first) / Math.max(1, last - first)) * (data.right - data.left);
  const y = (chart, log) => {
    const [low, high] = log ? chart.log : chart.lin;
    const share = log ? (value) => Math.log(Math.max(value, 1e-300) / low) / Math.log(high / low) : (value) => (value - low) / (high - low);
    return (value) => data.bottom - share(value) * (data.bottom - data.top);
  };
  const draw = (points, height) => {
    const d = points.map(([step, value], at) => (at ? "L" : "M") + +x(step).toFixed(1) + " " + +height(value).toFixed(1)).join("");
    return points.length === 1 ? d + "h.1" : d;
  };
  const smooth = (slider) => {
    const share = slider / 100, steps = 0.25 * (last - first) * share * share;
    for (const chart of charts) for (const curve of chart.curves.filter((curve) => curve.smooth)) {
      const run = data.runs[curve.run];
      const points = curve.v.map((value, at) => [middle(run, at), value]).filter((point) => point[1] !== null);
      const mean = smoothed(points, steps);
      for (const kind of ["lin", "log"]) {
        const path = chart.svg.querySelector("g." + kind + " [data-smooth=\"" + curve.at + "\"]");
        if (path) path.setAttribute("d", draw(mean, y(chart, kind === "log")));
      }
    }
    return steps;
  };

  const slider = document.getElementById("smoothing"), told = document.getElementById("smoothing-steps");
  const tell = (steps) => { told.textContent = steps < 0.5 ? "off" : "about " + grouped(steps) + " steps"; };
  slider.addEventListener("input", () => tell(smooth(+slider.value)));
  tell(0.25 * (last - first) * (data.slider / 100) ** 2);

  const at = document.getElementById("at-step");
  const valueAt = (chart, curve, step) => {
    const run = data.runs[curve.run], index = Math.floor((step - run.first) / run.width), value = curve.v[index];
    if (index < 0 || value === undefined || value === null) return "–";
    const text = units[chart.unit];
    if (!curve.lo || curve.lo[index] === curve.hi[index]) return text(value);
    return text(value) + " (" + text(curve.lo[index]) + " … " + text(curve.hi[index]) + ")";
  };
  const dotAt = (chart, dots, step) => {
    let index = -1;
    while (index + 1 < dots.s.length && dots.s[index + 1] <= step) index += 1;
    return index < 0 ? "–" : units[chart.unit](dots.v[index]) + " at step " + grouped(dots.s[index]);
  };
  const set = (chart, item, text) => {
    const legend = legends.get(chart.id + " " + item);
    if (legend) legend.cell.textContent = text;
  };
  const show = (step) => {
    pointed = step;
    at.textContent = "at step " + grouped(step);
    const place = x(step).toFixed(1);
    for (const chart of charts) {
      chart.cross.setAttribute("x1", place);
      chart.cross.setAttribute("x2", place);
      chart.cross.setAttribute("visibility", "visible");
      for (const curve of chart.curves) set(chart, "c" + curve.at, valueAt(chart, curve, step));
      for (const dots of chart.dots) set(chart, "d" + dots.at, dotAt(chart, dots, step));
    }
  };
  const rest = () => {
    pointed = null;
    at.textContent = "at the last step";
    for (const chart of charts) chart.cross.setAttribute("visibility", "hidden");
    for (const { cell, last } of legends.values()) cell.textContent = last;
  };
  let pointed = null;
  for (const { svg } of charts) {
    const follow = (event) => {
      const box = svg.getBoundingClientRect(), scale = box.width / svg.viewBox.baseVal.width;
      const share = ((event.clientX - box.left) / scale - data.left) / (data.right - data.left);
      show(Math.round(first + Math.min(1, Math.max(0, share)) * (last - first)));
    };
    svg.addEventListener("pointermove", follow);
    svg.addEventListener("pointerdown", follow);
    svg.addEventListener("pointerleave", rest);
    svg.addEventListener("blur", rest);
    svg.addEventListener("keydown", (event) => {
      const widest = Math.max(...data.runs.map((run) => run.width));
      const by = { ArrowLeft: -widest, ArrowRight: widest, PageUp: -(last - first) / 10, PageDown: (last - first) / 10 }[event.key];
      const to = event.key === "Home" ? first : event.key === "End" ? last : by && (pointed ?? (by > 0 ? first - by : last - by)) + by;
      if (to === undefined || to === 0 && by === undefined && event.key !== "Home") return;
      event.preventDefault();
      show(Math.round(Math.min(last, Math.max(first, to))));
    });
  }

  for (const box of document.querySelectorAll(".run-shown")) {
    box.addEventListener("change", () => {
      for (const part of document.querySelectorAll(".charts [data-run=\"" + box.value + "\"]")) part.classList.toggle("off", !box.checked);
    });
  }
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const part of folded) part.open = true;
  });
  addEventListener("afterprint", () => { for (const part of folded) part.open = false; });

  for (const part of document.querySelectorAll(".scripted")) part.hidden = false;
  rest();
  document.documentElement.dataset.scripted = "yes";
})();
