"use strict";
// What the pages need beyond htmx: charts from JSON, times that grow older, polling that rests while nobody looks,
// and replacements that leave alone what did not change. No inline scripts, no evaluation.
(() => {
  const language = document.documentElement.lang || "en";
  const word = (name) => document.body.dataset[name] || "";
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Times: "3 minutes ago", from <time datetime data-ago>.
  const ages = new Intl.RelativeTimeFormat(language, { numeric: "auto" });
  const steps = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
  function age(at) {
    const seconds = Math.round((at - Date.now()) / 1000);
    const [unit, size] = steps.find(([, s]) => Math.abs(seconds) >= s) || ["second", 1];
    return ages.format(Math.trunc(seconds / size), unit);
  }
  function times(root) {
    for (const node of root.querySelectorAll("time[data-ago]")) {
      const at = Date.parse(node.dateTime);
      if (!Number.isNaN(at)) node.textContent = age(at);
    }
  }

  // Charts: <div class="chart" data-chart="lines|bars" data-from="ID of a script with JSON">.
  const charts = new Map();
  const colours = () => Array.from({ length: 8 }, (_, i) => css(`--s${i}`));
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  function option(kind, data) {
    const text = css("--text"), soft = css("--soft"), line = css("--line"), narrow = innerWidth < 760;
    const axis = { axisLabel: { color: soft, hideOverlap: true }, axisLine: { lineStyle: { color: line } }, axisTick: { show: false }, splitLine: { lineStyle: { color: line } }, nameTextStyle: { color: soft } };
    const shared = {
      color: colours(), animation: false, aria: { enabled: true, label: { description: data.description || "" } },
      textStyle: { fontFamily: getComputedStyle(document.body).fontFamily },
      tooltip: { trigger: "axis", renderMode: "richText", confine: true, backgroundColor: css("--card"), borderColor: line, textStyle: { color: text, fontSize: 12 } },
    };
    if (kind === "bars") {
      return { ...shared, grid: { left: 4, right: 34, top: 8, bottom: 2, containLabel: true },
        tooltip: { ...shared.tooltip, axisPointer: { type: "shadow" } },
        legend: undefined,
        xAxis: { type: "value", ...axis, axisLabel: { ...axis.axisLabel, formatter: `{value} ${data.unit || ""}` } },
        yAxis: { type: "category", inverse: true, data: data.names, ...axis, axisLabel: { color: text } },
        series: data.series.map((s) => ({ name: s.name, type: "bar", data: s.values, barMaxWidth: 14, barGap: "15%" })) };
    }
    const symbols = ["circle", "rect", "triangle", "diamond", "emptyCircle", "emptyRect", "emptyTriangle", "emptyDiamond"];
    return { ...shared, grid: { left: 6, right: 16, top: 26, bottom: narrow ? 58 : 34, containLabel: true },
      legend: { type: "scroll", bottom: 0, textStyle: { color: text }, pageTextStyle: { color: soft }, inactiveColor: soft },
      xAxis: { type: "value", name: "", min: "dataMin", max: "dataMax", ...axis, splitLine: { show: false }, axisLabel: { ...axis.axisLabel, showMaxLabel: false, formatter: (v) => `${Math.round(10 * v) / 10} ${data.x_unit || ""}` } },
      yAxis: { type: "value", name: data.unit || "", nameLocation: "end", nameGap: 10, scale: Boolean(data.scale), ...axis, nameTextStyle: { color: soft, align: "left" } },
      series: data.series.map((s, i) => ({ name: s.name, type: "line", data: s.points, showSymbol: s.points.length < 16, symbol: symbols[i % 8], symbolSize: 6, connectNulls: false, lineStyle: { width: 2, type: ["solid", "dashed", "dotted"][(i + Math.floor(i / 8)) % 3] } })) };
  }
  function draw(node) {
    const source = document.getElementById(node.dataset.from);
    if (!source || !window.echarts) return;
    const colours = css("--text");
    if (charts.has(node) && node.dataset.drawn === colours + source.textContent) return;
    node.dataset.drawn = colours + source.textContent;
    const data = JSON.parse(source.textContent);
    let chart = charts.get(node);
    if (!chart) {
      chart = window.echarts.init(node, null, { renderer: "canvas" });
      charts.set(node, chart);
    }
    const chosen = chart.getOption && chart.getOption()?.legend?.[0]?.selected;
    chart.setOption(option(node.dataset.chart, data), { notMerge: true });
    if (chosen) chart.setOption({ legend: { selected: chosen } });
  }
  function drawAll(root) {
    for (const [node, chart] of charts) if (!node.isConnected) { chart.dispose(); charts.delete(node); }
    for (const node of document.querySelectorAll("[data-chart]")) {
      if (root.contains(node) || root.contains(document.getElementById(node.dataset.from))) draw(node);
    }
  }

  // A replacement that is the same as what is there is not made. What a reader has opened, scrolled or focused stays so,
  // and a change is told once to screen readers.
  const seen = new Map();
  let kept = { opened: [], scrolled: [], focused: null, charts: new Map() };
  function pathOf(node) {
    if (node.id) return `#${CSS.escape(node.id)}`;
    const href = node.getAttribute?.("href");
    return href ? `a[href="${CSS.escape(href)}"]` : "";
  }
  function keep(target) {
    const focused = target.contains(document.activeElement) ? document.activeElement : null;
    kept = {
      opened: [...target.querySelectorAll("details[open][id]")].map((d) => d.id),
      scrolled: [...target.querySelectorAll(".scroll, .strip")].map((n) => n.scrollLeft),
      charts: new Map([...target.querySelectorAll("[data-chart]")].map((n) => [n.dataset.from, n])),
      focused: focused && pathOf(focused) ? { path: pathOf(focused), at: [...target.querySelectorAll(pathOf(focused))].indexOf(focused) } : null,
    };
  }
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { target, xhr } = event.detail;
    if (xhr.status >= 400) { event.detail.shouldSwap = false; offline(xhr.status === 401 ? "signedOut" : "away"); return; }
    offline("");
    // It was asked for before the form was touched.
    if (event.detail.requestConfig?.elt?.matches("[data-live]") && inUse(target)) { event.detail.shouldSwap = false; return; }
    const same = seen.get(target.id) === xhr.responseText;
    seen.set(target.id, xhr.responseText);
    if (same) event.detail.shouldSwap = false;
    else keep(target);
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    const root = event.detail.target;
    times(root);
    // A chart stays the same element, so that it does not blink.
    for (const n of root.querySelectorAll("[data-chart]")) if (kept.charts.has(n.dataset.from)) n.replaceWith(kept.charts.get(n.dataset.from));
    for (const id of kept.opened) document.getElementById(id)?.setAttribute("open", "");
    [...root.querySelectorAll(".scroll, .strip")].forEach((n, i) => { if (kept.scrolled[i]) n.scrollLeft = kept.scrolled[i]; });
    if (kept.focused) root.querySelectorAll(kept.focused.path)[kept.focused.at]?.focus({ preventScroll: true });
    say(root);
    drawAll(root);
  });
  function say(root) {
    const told = root.querySelector("[data-say]"), said = document.getElementById("said");
    const text = told ? told.textContent.replace(/\s+/g, " ").trim() : "";
    if (said && text && said.dataset.last !== text) {
      if (said.dataset.last) said.textContent = text;
      said.dataset.last = text;
    }
  }

  // Polling rests while the page is hidden or a form inside the part was touched, and says when the server is away.
  const touched = (f) => [...f.elements].some((e) => (e.type === "checkbox" ? e.checked !== e.defaultChecked : e.tagName === "SELECT" ? [...e.options].some((o) => o.selected !== o.defaultSelected && (o.defaultSelected || o.index > 0)) : "defaultValue" in e && e.type !== "hidden" && e.value !== e.defaultValue));
  const inUse = (part) => (part.contains(document.activeElement) && document.activeElement.matches("input, textarea, select")) || [...part.querySelectorAll("form")].some(touched);
  document.addEventListener("htmx:beforeRequest", (event) => {
    const source = event.detail.elt;
    if (!source.matches("[data-live]")) return;
    if (document.hidden || inUse(source)) event.preventDefault();
  });
  document.addEventListener("htmx:sendError", () => offline("away"));
  function offline(which) {
    const note = document.getElementById("offline");
    if (!note) return;
    note.hidden = !which;
    const text = which ? word(which) : "";
    if (note.textContent !== text) note.textContent = text;
  }
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) for (const node of document.querySelectorAll("[data-live]")) node.dispatchEvent(new Event("wake"));
  });

  // A button with data-sure asks once more.
  document.addEventListener("submit", (event) => {
    const sure = event.submitter?.dataset.sure;
    if (sure && !window.confirm(sure)) event.preventDefault();
  });
  // A picture that cannot be had gives its place to words.
  document.addEventListener("error", (event) => {
    const image = event.target;
    if (!(image instanceof HTMLImageElement) || !image.dataset.missing) return;
    const box = document.createElement("div");
    box.className = "nopicture";
    box.textContent = image.dataset.missing;
    image.replaceWith(box);
  }, true);

  function start() {
    times(document);
    say(document.body);
    drawAll(document.body);
    const missing = (document.querySelector("[data-chart]") && !window.echarts) || !window.htmx;
    const note = document.getElementById("no-parts");
    if (note && missing) note.hidden = false;
    if (!window.echarts) for (const node of document.querySelectorAll("[data-chart]")) node.hidden = true;
    setInterval(() => { if (!document.hidden) times(document); }, 5000);
    addEventListener("resize", () => { for (const chart of charts.values()) chart.resize(still ? undefined : {}); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(document.body));
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
