"use strict";
// The timeline: bandwidth, placement and latency of one run over the trace's time.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const figure = document.getElementById("timeline-figure");
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((each) => { each.open = true; });
  });
  if (!figure) return;

  const tip = document.getElementById("tip");
  const choose = Object.fromEntries(
    ["cell", "policy", "rival"].map((name) => [name, document.getElementById("choose-" + name)]),
  );
  const W = 1000, LEFT = 62, RIGHT = 990;
  const PANEL = { bandwidth: [14, 128], placement: [150, 176], latency: [198, 398] };
  const HEIGHT = 436;
  const MARKS = { cloud: "var(--chief)", edge: "var(--edge)", "edge-before-cloud": "var(--race)",
    "edge-after-cloud-failed": "var(--bad)" };
  let view = null; // [from, to] in seconds of the trace, or null for all

  const cellOf = (run) => JSON.stringify([run.model, run.trace, run.seed]);
  const cellWords = (run) => `${run.model} over ${run.trace}` +
    (data.seeds > 1 ? `, seed ${run.seed}` : "");
  const option = (select, value, words) => {
    const made = document.createElement("option");
    made.value = value; made.textContent = words; select.append(made);
  };
  const keep = (select, wanted) => {
    if ([...select.options].some((each) => each.value === wanted)) select.value = wanted;
  };
  const inCell = () => data.runs.filter((run) => cellOf(run) === choose.cell.value);
  const current = () => inCell().find((run) => run.policy === choose.policy.value);
  const rival = () => inCell().find((run) => run.policy === choose.rival.value);
  const escape = (words) => words.replace(/[&<>"]/g,
    (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);

  function fillPolicies() {
    const before = [choose.policy.value || data.chief, choose.rival.value || "oracle"];
    choose.policy.replaceChildren(); choose.rival.replaceChildren();
    option(choose.rival, "", "nothing");
    for (const run of inCell()) {
      option(choose.policy, run.policy, data.names[run.policy]);
      option(choose.rival, run.policy, data.names[run.policy]);
    }
    keep(choose.policy, before[0]); keep(choose.rival, before[1]);
  }

  const linear = (low, high, from, to) => (v) => from + (v - low) / (high - low || 1) * (to - from);
  const log = (low, high, from, to) => {
    const scale = linear(Math.log(low), Math.log(high), from, to);
    return (v) => scale(Math.log(Math.max(v, low)));
  };
  function logTicks(low, high, most) {
    let found = [];
    for (const digits of [[1], [1, 3], [1, 2, 5], [1, 2, 3, 4, 6, 8]]) {
      const ticks = [];
      for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p++) {
        for (const digit of digits) {
          const tick = Number((digit * 10 ** p).toPrecision(6));
          if (tick >= low && tick <= high) ticks.push(tick);
        }
      }
      if (ticks.length > most && found.length > 1) break;
      if (ticks.length) found = ticks;
    }
    return found;
  }
  function linearTicks(low, high, most) {
    const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
    const ticks = [];
    for (let at = Math.ceil(low / step); at * step <= high; at++) ticks.push(at * step);
    return ticks.map((t) => Number(t.toPrecision(12)));
  }
  const n = (v) => (Math.round(v * 10) / 10).toString();
  const words = (v) => v >= 1000 ? v.toLocaleString("en") : String(Number(v.toPrecision(3)));
  const extent = (values) => {
    let low = Infinity, high = -Infinity;
    for (const v of values) if (v !== null && v > 0) { low = Math.min(low, v); high = Math.max(high, v); }
    return low > high ? [1, 10] : low === high ? [low / 2, high * 2] : [low, high];
  };
  // Parts of a run's requests between two moments, one beyond each end so that lines go on.
  function within(times, shift, [from, to]) {
    let first = 0, last = times.length;
    while (first < times.length - 1 && times[first + 1] + shift < from) first++;
    while (last > first + 1 && times[last - 2] + shift > to) last--;
    return [first, last];
  }
  const whole = (run) => [run.t[0] + run.shift, run.t[run.t.length - 1] + run.shift + 0.001];

  function axis(scale, ticks, [top, bottom], title) {
    return `<text class="axis-title" x="${LEFT}" y="${top - 5}">${title}</text>` +
      ticks.map((tick) => `<line class="grid" x1="${LEFT}" x2="${RIGHT}" y1="${n(scale(tick))}" y2="${n(scale(tick))}"/>` +
        `<text class="tick" x="${LEFT - 6}" y="${n(scale(tick) + 3.5)}" text-anchor="end">${words(tick)}</text>`).join("");
  }
  function steps(times, values, shift, x, y, [from, to]) {
    const [first, last] = within(times, shift, [from, to]);
    const points = [];
    let before = null;
    for (let i = first; i < last; i++) {
      if (values[i] === null) continue;
      const at = x(Math.max(times[i] + shift, from));
      if (before !== null) points.push(`${n(at)},${n(before)}`);
      before = y(values[i]);
      points.push(`${n(at)},${n(before)}`);
    }
    if (before !== null) points.push(`${n(x(to))},${n(before)}`);
    return points;
  }

  function draw() {
    const run = current();
    if (!run) return;
    const other = rival() === run ? undefined : rival();
    const span = view || whole(run);
    const x = linear(span[0], span[1], LEFT, RIGHT);
    const seen = (times, values, shift) => values.slice(...within(times, shift, span));
    const rates = extent([...seen(run.bt, run.bw, 0), ...seen(run.t, run.b, run.shift)]);
    const yRate = log(rates[0] / 1.15, rates[1] * 1.15, PANEL.bandwidth[1], PANEL.bandwidth[0]);
    const lat = extent([...seen(run.t, run.ms, run.shift), ...(other ? seen(other.t, other.ms, other.shift) : [])]);
    const yMs = log(lat[0] / 1.1, lat[1] * 1.1, PANEL.latency[1], PANEL.latency[0]);
    const options = data.placements[run.model];
    let out = axis(yRate, logTicks(rates[0] / 1.15, rates[1] * 1.15, 5), PANEL.bandwidth, "uplink, Mbit/s") +
      axis(yMs, logTicks(lat[0] / 1.1, lat[1] * 1.1, 7), PANEL.latency, "latency, ms") +
      `<text class="axis-title" x="${LEFT}" y="${PANEL.placement[0] - 5}">placement</text>`;
    for (const tick of linearTicks(span[0], span[1], 10)) {
      const at = n(x(tick));
      out += `<line class="grid" x1="${at}" x2="${at}" y1="${PANEL.bandwidth[0]}" y2="${PANEL.latency[1]}"/>` +
        `<text class="tick" x="${at}" y="${PANEL.latency[1] + 15}" text-anchor="middle">${words(tick)}</text>`;
    }
    out += `<text class="tick" x="${(LEFT + RIGHT) / 2}" y="${HEIGHT - 6}" text-anchor="middle">seconds of the trace</text>`;
    out += `<g clip-path="url(#plot)">` + bandwidth(run, x, yRate, span) +
      placement(run, x, span, options) + latency(run, other, x, yMs, span) + "</g>";
    figure.querySelector("svg")?.remove();
    figure.insertAdjacentHTML("afterbegin",
      `<svg class="chart" viewBox="0 0 ${W} ${HEIGHT}" role="img" aria-label="Timeline of ${escape(data.names[run.policy])} on ${escape(cellWords(run))}">` +
      `<clipPath id="plot"><rect x="${LEFT}" y="0" width="${RIGHT - LEFT}" height="${HEIGHT}"/></clipPath>` +
      out + `<g id="over"></g></svg>`);
    listen(figure.querySelector("svg"), run, other, x, yMs, span, options);
    legend(options, run);
  }
  function bandwidth(run, x, y, span) {
    const floor = PANEL.bandwidth[1];
    const truth = steps(run.bt, run.bw, 0, x, y, span);
    let out = "";
    if (truth.length) {
      const ends = [truth[0].split(",")[0], truth[truth.length - 1].split(",")[0]];
      out += `<polygon class="truth-area" points="${ends[0]},${floor} ${truth.join(" ")} ${ends[1]},${floor}"/>`;
    }
    for (const [from, to] of run.cuts) {
      out += `<rect class="cut" x="${n(x(from))}" y="${PANEL.bandwidth[0]}" width="${n(x(to) - x(from))}" height="${PANEL.latency[1] - PANEL.bandwidth[0]}"/>`;
    }
    const high = steps(run.t, run.hi, run.shift, x, y, span);
    const low = steps(run.t, run.lo, run.shift, x, y, span);
    if (high.length && low.length) {
      out += `<polygon class="band" points="${high.join(" ")} ${low.reverse().join(" ")}"/>`;
    }
    out += `<polyline class="truth" points="${truth.join(" ")}"/>`;
    return out + `<polyline class="belief" points="${steps(run.t, run.b, run.shift, x, y, span).join(" ")}"/>`;
  }
  function placement(run, x, span, options) {
    const [top, bottom] = PANEL.placement;
    const [first, last] = within(run.t, run.shift, span);
    let out = "", start = first;
    for (let i = first; i < last; i++) {
      if (i + 1 < last && run.o[i + 1] === run.o[start]) continue;
      const from = x(run.t[start] + run.shift);
      const to = i + 1 < run.t.length ? x(run.t[i + 1] + run.shift) : x(run.t[i] + run.shift + run.ms[i] / 1e3);
      out += `<rect x="${n(from)}" y="${top}" width="${n(Math.max(to - from, 0.4))}" height="${bottom - top}" fill="${options[run.o[start]].colour}"/>`;
      start = i + 1;
    }
    return out;
  }
  function latency(run, other, x, y, span) {
    let out = "";
    if (other) {
      const [first, last] = within(other.t, other.shift, span);
      const points = [];
      for (let i = first; i < last; i++) points.push(`${n(x(other.t[i] + other.shift))},${n(y(other.ms[i]))}`);
      out += `<polyline class="rival" points="${points.join(" ")}"/>`;
    }
    const [first, last] = within(run.t, run.shift, span);
    for (let i = first; i < last; i++) {
      out += `<circle cx="${n(x(run.t[i] + run.shift))}" cy="${n(y(run.ms[i]))}" r="2.4" style="fill:${MARKS[data.where[run.w[i]]]}"/>`;
    }
    return out;
  }
  function legend(options, run) {
    const used = new Set(run.o);
    const placements = options.map((each, at) => used.has(at)
      ? `<span class="key"><i style="background:${each.colour}"></i>${escape(each.label)}</span>` : "").join("");
    const told = [...new Set(run.w)].sort().map((at) =>
      `<span class="key"><i style="background:${MARKS[data.where[at]]};border-radius:50%"></i>${data.answers[at]}</span>`).join("");
    document.getElementById("timeline-legend").innerHTML = placements + told;
  }
  function nearest(run, at) {
    let low = 0, high = run.t.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (run.t[middle] + run.shift < at) low = middle + 1; else high = middle;
    }
    if (low > 0 && at - (run.t[low - 1] + run.shift) < run.t[low] + run.shift - at) low--;
    return low;
  }
  function rateAt(run, at) {
    let rate = null;
    for (let i = 0; i < run.bt.length && run.bt[i] <= at; i++) rate = run.bw[i];
    return rate;
  }
  function listen(svg, run, other, x, y, span, options) {
    const over = svg.querySelector("#over");
    const secondsAt = (event) => {
      const box = svg.getBoundingClientRect();
      const at = (event.clientX - box.left) / box.width * W;
      return span[0] + (Math.min(Math.max(at, LEFT), RIGHT) - LEFT) / (RIGHT - LEFT) * (span[1] - span[0]);
    };
    let from = null;
    svg.addEventListener("pointerdown", (event) => { from = secondsAt(event); });
    svg.addEventListener("pointermove", (event) => {
      const at = secondsAt(event), i = nearest(run, at);
      const px = x(run.t[i] + run.shift);
      over.innerHTML = `<line class="hair" x1="${n(px)}" x2="${n(px)}" y1="${PANEL.bandwidth[0]}" y2="${PANEL.latency[1]}"/>` +
        `<circle cx="${n(px)}" cy="${n(y(run.ms[i]))}" r="5" fill="none" stroke="var(--ink)"/>` +
        (from === null ? "" : `<rect class="brush" x="${n(Math.min(x(from), x(at)))}" width="${n(Math.abs(x(at) - x(from)))}" y="${PANEL.bandwidth[0]}" height="${PANEL.latency[1] - PANEL.bandwidth[0]}"/>`);
      show(event, run, other, i, options);
    });
    svg.addEventListener("pointerup", (event) => {
      const to = secondsAt(event), least = (span[1] - span[0]) / 100;
      if (from !== null && Math.abs(to - from) > least) { view = [Math.min(from, to), Math.max(from, to)]; draw(); }
      from = null;
    });
    svg.addEventListener("pointerleave", () => { over.innerHTML = ""; tip.style.visibility = "hidden"; from = null; });
    svg.addEventListener("dblclick", () => { view = null; draw(); });
  }
  function show(event, run, other, i, options) {
    const box = figure.getBoundingClientRect();
    const rows = [
      `<b>${words(run.t[i] + run.shift)} s</b>`,
      `${words(run.ms[i])} ms, ${data.answers[run.w[i]]}${run.h[i] ? ", hedged" : ""}`,
      escape(options[run.o[i]].label),
    ];
    const truth = rateAt(run, run.t[i] + run.shift);
    if (truth !== null) rows.push(`uplink ${words(truth)} Mbit/s`);
    if (run.b[i] !== null) {
      const band = run.lo[i] === null || run.hi[i] === null ? "" : ` (${words(run.lo[i])} to ${words(run.hi[i])})`;
      rows.push(`believed ${words(run.b[i])} Mbit/s${band}`);
    }
    if (other) {
      const at = nearest(other, run.t[i] + run.shift);
      rows.push(`${escape(data.names[other.policy])}: ${words(other.ms[at])} ms, ${escape(options[other.o[at]].label)}`);
    }
    tip.innerHTML = rows.join("<br>");
    tip.style.visibility = "visible";
    const left = event.clientX - box.left;
    tip.style.left = (left > box.width / 2 ? left - tip.offsetWidth - 14 : left + 14) + "px";
    tip.style.top = Math.max(0, event.clientY - box.top - 40) + "px";
  }

  const cells = new Map(data.runs.map((run) => [cellOf(run), cellWords(run)]));
  for (const [value, told] of cells) option(choose.cell, value, told);
  fillPolicies();
  choose.cell.addEventListener("change", () => { view = null; fillPolicies(); draw(); });
  choose.policy.addEventListener("change", draw);
  choose.rival.addEventListener("change", draw);
  document.getElementById("all-of-it").addEventListener("click", () => { view = null; draw(); });
  draw();
})();
