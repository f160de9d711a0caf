// Run in a page: returns its problems for assistive programs and small screens as a JSON list of texts.
const problems = [];
const tell = (what, node) => problems.push(`${what}: ${node ? node.outerHTML.slice(0, 120) : ""}`);
const shown = (n) => { const r = n.getBoundingClientRect(); return r.width > 0 && r.height > 0 && getComputedStyle(n).visibility !== "hidden"; };
const unseen = (n) => n.closest(".unseen, .skip, thead.unseen") !== null;

// Names: every control, link, picture and region.
for (const n of document.querySelectorAll("input:not([type=hidden]), select, textarea")) {
  if (!(n.labels && n.labels.length) && !n.getAttribute("aria-label")) tell("a field without a label", n);
}
const named = (n) => (n.textContent.trim() || n.getAttribute("aria-label") || n.querySelector("img[alt]:not([alt=''])")?.alt || n.getAttribute("title") || "");
for (const n of document.querySelectorAll("a[href], button")) if (shown(n) && !named(n)) tell("no name", n);
for (const n of document.querySelectorAll("img")) if (!n.hasAttribute("alt")) tell("a picture without alt", n);
for (const n of document.querySelectorAll("svg")) if (!n.closest("[aria-hidden=true]") && !n.getAttribute("aria-label")) tell("a drawing without a name", n);
for (const n of document.querySelectorAll("[role=region]")) if (!n.getAttribute("aria-label") && !n.getAttribute("aria-labelledby")) tell("a region without a name", n);
for (const n of document.querySelectorAll("[aria-labelledby], [aria-describedby]")) {
  for (const id of `${n.getAttribute("aria-labelledby") || ""} ${n.getAttribute("aria-describedby") || ""}`.trim().split(/\s+/)) {
    if (!document.getElementById(id)) tell(`refers to #${id}, which is not there`, n);
  }
}
const ids = [...document.querySelectorAll("[id]")].map((n) => n.id);
for (const id of new Set(ids.filter((id, i) => ids.indexOf(id) !== i))) problems.push(`two elements with the id ${id}`);
for (const n of document.querySelectorAll("th")) if (!n.getAttribute("scope")) tell("a heading of a table without scope", n);
if (!document.documentElement.lang) problems.push("no language");
if (document.querySelectorAll("main").length !== 1) problems.push("not one main");

// Headings: one h1, no level left out.
let level = 0;
for (const h of document.querySelectorAll("h1, h2, h3, h4")) {
  const next = Number(h.tagName[1]);
  if (next > level + 1) tell(`heading ${next} after ${level}`, h);
  level = next;
}
if (document.querySelectorAll("h1").length !== 1) problems.push("not one h1");

// Contrast of text on what is behind it (WCAG 2.2 AA).
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const rgba = (text) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1); const d = canvas.getImageData(0, 0, 1, 1).data; return [d[0], d[1], d[2], d[3] / 255]; };
const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3]));
const ground = (n) => {
  const layers = [];
  for (let at = n; at; at = at.parentElement) layers.unshift(rgba(getComputedStyle(at).backgroundColor));
  return layers.reduce((under, top) => over(top, under), rgba(getComputedStyle(document.documentElement).colorScheme.includes("dark") && matchMedia("(prefers-color-scheme: dark)").matches ? "#000" : "#fff"));
};
const light = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
for (const n of document.querySelectorAll("body *")) {
  const own = [...n.childNodes].some((c) => c.nodeType === 3 && c.textContent.trim());
  if (!own || !shown(n) || unseen(n) || n.closest("svg, canvas, script, option")) continue;
  const style = getComputedStyle(n), behind = ground(n), front = over(rgba(style.color), behind);
  const [a, b] = [light(front), light(behind)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
  const big = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 700);
  if (ratio < (big ? 3 : 4.5)) tell(`contrast ${ratio.toFixed(2)}`, n);
}

// Small screens: nothing sticks out, and what is touched is 44 px high (links within a sentence apart).
const root = document.documentElement;
if (root.scrollWidth > root.clientWidth) problems.push(`wider than the screen: ${root.scrollWidth} > ${root.clientWidth}`);
if (root.clientWidth < 760) {
  for (const n of document.querySelectorAll("button, .button, input:not([type=hidden]):not([type=checkbox]), select, .nav a, .chips a")) {
    if (shown(n) && !unseen(n) && n.getBoundingClientRect().height < 43.5) tell(`${n.getBoundingClientRect().height} px high`, n);
  }
}
return JSON.stringify(problems);
