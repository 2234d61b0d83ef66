// The viewer's page: asks the server for rows, samples and pictures, and draws boxes and masks over them as SVG, so that
// switches and sliders need no new picture. Whatever comes from a data set goes into the document as text or as a
// number, never as HTML. What is looked at stands in the address behind `#`, so "back" and "reload" work.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const PAGE = 24;
const MOST_BOXES = 101; // the slider's right end: all of them
const ORDER = ["refused", "proposals", "negatives", "objects"]; // the last lies on top
const NAMES = {
  objects: "objects, by id", proposals: "other proposals", negatives: "negatives", refused: "refused", masks: "masks",
};

const $ = (id) => document.getElementById(id);
const shown = { objects: true, proposals: true, negatives: true, refused: false, masks: false }; // and sidecars by name
const limits = { best: 30, score: 0 };
let about = null;
let page = { rows: [], begin: 0, found: 0, complete: true };
let drawn = []; // what has to be drawn again when a switch changes
let asked = 0; // number of the newest search: answers to older ones are dropped

// --- asking ---

async function ask(name, values = {}) {
  const address = new URL(`api/${name}`, document.baseURI);
  address.search = new URLSearchParams(values);
  let answer;
  try {
    answer = await fetch(address);
  } catch {
    throw new Error("the viewer does not answer: is trackmill view still running?");
  }
  const values_ = await answer.json().catch(() => ({ error: `the viewer answered with ${answer.status}` }));
  if (!answer.ok) throw new Error(values_.error || `the viewer answered with ${answer.status}`);
  return values_;
}

function pictureUrl(sample, frame, width = 0) {
  const values = { row: sample.number, key: sample.key, frame, v: about.fingerprint };
  if (width) values.width = width;
  return `api/frame?${new URLSearchParams(values)}`;
}

// Masks and sidecars of a sample, fetched once and only when a switch wants them.
async function maskOf(sample, frame) {
  sample.masks ??= {};
  sample.masks[frame] ??= ask("masks", { row: sample.number, key: sample.key, frame });
  return sample.masks[frame];
}

async function sidecarOf(sample, name) {
  sample.sidecars ??= {};
  sample.sidecars[name] ??= ask("sidecar", { row: sample.number, key: sample.key, name });
  return sample.sidecars[name];
}

// --- making elements ---

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  return fill(element, attributes, children);
}

function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  return fill(element, attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== false && value !== undefined && value !== null) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

const number = (value) => Number(value).toLocaleString("en");
const counted = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
const colourOf = (layer) => about.colours[layer] ?? about.colours.sidecar;

function complain(error, where = $("fault")) {
  const text = error ? error.message : "";
  if (where.textContent !== text) where.textContent = text; // what stays is not read aloud again
  where.hidden = !error;
}

// What is wrong with the data set itself, which is to be seen whatever else goes well; null where nothing is.
function damage() {
  if (!about?.damaged.length) return null;
  return new Error(`${counted(about.num_damaged, "receipt")} cannot be read: ${about.damaged[0]}`);
}

// --- drawing a frame ---

function canvasOf(sample, href, interactive) {
  const { width, height } = sample;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "xMidYMid meet" });
  picture.append(svg("image", { href, width, height, preserveAspectRatio: "none" }), svg("g", { class: "layers" }));
  if (interactive) picture.setAttribute("role", "img");
  else picture.setAttribute("aria-hidden", "true");
  return picture;
}

// One view of a frame: its SVG, the sample, which frame, and how coarse masks may be.
async function draw(view) {
  const turn = (view.turn = (view.turn ?? 0) + 1);
  const { sample, frame } = view;
  const values = sample.frames[frame];
  const faults = [];
  const masks = shown.masks && sample.has_masks ? await maskOf(sample, frame).catch((e) => void faults.push(e)) : null;
  const more = [];
  for (const { name, boxes } of about.sidecars) {
    if (!boxes || !shown[`sidecar ${name}`]) continue;
    const found = await sidecarOf(sample, name).catch((e) => void faults.push(e));
    if (found) more.push([name, found.frames]);
  }
  if (view.turn !== turn) return; // a later call draws
  const groups = ORDER.filter((layer) => shown[layer]).map((layer) => groupOf(view, layer, values.layers[layer], masks));
  for (const [name, frames] of more) groups.push(sidecarGroup(view, name, frames));
  view.svg.querySelector(".layers").replaceChildren(...groups);
  if (view.onFault) view.onFault(faults[0] ?? null);
}

function kept(layer, entries) {
  if (layer === "objects") return entries; // annotations are all shown: there is no best of them
  const good = entries.filter((entry) => entry.score === undefined || entry.score >= limits.score);
  return limits.best >= MOST_BOXES ? good : good.slice(0, limits.best);
}

function groupOf(view, layer, entries, masks) {
  const group = svg("g", { class: layer });
  const list = kept(layer, entries);
  const found = masks && (layer === "objects" ? masks.objects : layer === "refused" ? null : masks.proposals);
  for (const entry of found ? list : []) {
    const mask = found[entry.mask];
    if (mask) group.append(svg("path", { class: "mask", d: maskPath(mask, view.step), fill: entry.colour ?? colourOf(layer) }));
  }
  for (const entry of list) group.append(boxOf(entry, entry.colour ?? colourOf(layer), layer.replace(/s$/, "")));
  for (const entry of list) if (entry.id !== undefined) group.append(...tagOf(view, entry, entry.id));
  return group;
}

function sidecarGroup(view, name, frames) {
  const group = svg("g", { class: "sidecar" });
  const entries = frames[view.frame] ?? [];
  const tracked = entries.some((entry) => entry.id !== null && !entry.tag);
  for (const entry of tracked ? longest(frames, entries) : kept(name, entries)) {
    const points = tracked ? trail(frames, view.frame, entry.id) : [];
    if (points.length > 1) group.append(svg("polyline", { class: "trail", points: points.join(" "), stroke: entry.colour }));
    group.append(boxOf(entry, entry.colour, name));
    group.append(...tagOf(view, entry, tracked ? entry.id : entry.tag));
  }
  return group;
}

// Of tracks the best are the longest ones, the same in every frame of the clip.
function longest(frames, entries) {
  if (!frames.ranks) {
    const lengths = new Map();
    for (const { id } of frames.flat()) lengths.set(id, (lengths.get(id) ?? 0) + 1);
    const ids = [...lengths.keys()].sort((one, other) => lengths.get(other) - lengths.get(one));
    frames.ranks = new Map(ids.map((id, rank) => [id, rank]));
  }
  return entries.filter(({ id }) => limits.best >= MOST_BOXES || frames.ranks.get(id) < limits.best);
}

// The way that a track came: the middles of its boxes up to this frame.
function trail(frames, until, id) {
  const points = [];
  for (const entries of frames.slice(Math.max(0, until - 30), until + 1)) {
    const found = entries.find((entry) => entry.id === id);
    if (found) points.push(`${(found.box[0] + found.box[2]) / 2},${(found.box[1] + found.box[3]) / 2}`);
  }
  return points;
}

function boxOf(entry, colour, kind) {
  const [x0, y0, x1, y1] = entry.box.map(Number);
  const place = { x: x0, y: y0, width: Math.max(0, x1 - x0), height: Math.max(0, y1 - y0) };
  if (!Object.values(place).every(Number.isFinite)) return svg("g");
  const box = svg("rect", { class: "box", stroke: colour, ...place });
  box.dataset.title = entry.title.startsWith(kind) ? entry.title : `${kind} ${entry.title}`;
  return box;
}

function tagOf(view, entry, text) {
  if (!text) return [];
  const size = view.sample.width / (view.step > 2 ? 17 : 52);
  const x = Math.max(0, entry.box[0]) + size * 0.25;
  const y = Math.max(0, entry.box[1]) + size;
  const tag = svg("text", { x, y, "font-size": size, "stroke-width": size * 0.2, fill: entry.colour });
  tag.textContent = text;
  return [tag];
}

// --- masks: COCO's compressed run lengths, column by column, as one path of upright bars ---

function runsOf(counts) {
  const runs = [];
  for (let at = 0; at < counts.length; ) {
    let value = 0, shift = 0, group;
    do {
      group = counts.charCodeAt(at++) - 48;
      value += (group & 31) * 2 ** shift;
      shift += 5;
    } while (group & 32 && at < counts.length);
    if (group & 16) value -= 2 ** shift;
    if (runs.length > 2) value += runs[runs.length - 2];
    runs.push(value);
  }
  return runs;
}

function maskPath({ x, y, w, h, counts }, step) {
  const parts = [];
  let at = 0;
  runsOf(counts).forEach((run, index) => {
    const end = Math.min(at + run, w * h);
    while (index % 2 && at < end) {
      const column = Math.floor(at / h), top = at % h, length = Math.min(h - top, end - at);
      if (column % step === 0) parts.push(`M${x + column} ${y + top}h${Math.min(step, w - column)}v${length}h-${Math.min(step, w - column)}z`);
      at += length;
    }
    at = end;
  });
  return parts.join("");
}

// --- the grid ---

const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    seen.unobserve(target);
    load(target);
  }
}, { rootMargin: "300px" });

function cardOf(row) {
  const counts = [[row.objects, "object"], [row.proposals, "proposal"], [row.negatives, "negative"]]
    .filter(([count, noun]) => count || noun === "proposal").map(([count, noun]) => counted(count, noun));
  const kind = row.frames > 1 ? `clip of ${row.frames} frames` : "picture";
  if (row.mean_score) counts.push(`mean score ${row.mean_score.toFixed(2)}`);
  const said = about.counted ? counts.join(", ") : "";
  const card = make("button", { type: "button", class: "card", "aria-label": `${kind} ${row.key}: ${said}` });
  const picture = make("div", { class: "picture" });
  if (row.frames > 1) picture.append(make("span", { class: "badge" }, `clip · ${row.frames} frames`));
  const key = make("div", { class: "key mono", title: row.key }, row.key);
  card.append(picture, make("div", { class: "about" }, key, make("div", { class: "counts" }, said || kind)));
  card.row = row;
  card.addEventListener("click", () => go({ key: row.key, row: row.number }));
  return card;
}

async function load(card) {
  const { row } = card;
  const picture = card.querySelector(".picture");
  try {
    const sample = await ask("sample", { row: row.number, key: row.key, frame: 0 });
    if (!card.isConnected) return;
    const view = { sample, frame: 0, svg: canvasOf(sample, pictureUrl(sample, 0, 400), false), step: 4 };
    picture.prepend(view.svg);
    drawn.push(view);
    await draw(view);
  } catch (error) {
    picture.append(make("div", { class: "fault" }, error.message));
  }
}

function showPage() {
  const { status } = address();
  const set_aside = status !== "ok";
  for (const element of document.querySelectorAll(ONLY.join())) element.hidden = element.matches(notOf(status));
  const nothing = page.complete && !page.rows.length;
  $("grid").hidden = set_aside && !nothing;
  $("aside-rows").hidden = !set_aside || !page.rows.length;
  drawn = drawn.filter((view) => view.zoomed);
  seen.disconnect();
  const cards = set_aside ? [] : page.rows.map(cardOf);
  $("grid").replaceChildren(...(nothing ? [make("p", { class: "empty" }, whyNothing(status))] : cards));
  cards.forEach((card) => seen.observe(card));
  const cells = (row) => [row.error_class, row.reason, row.uri].map((text) => make("td", {}, text));
  $("aside-rows").tBodies[0].replaceChildren(...(set_aside ? page.rows : []).map((row) => make("tr", {}, ...cells(row))));
  const end = page.begin + page.rows.length;
  const total = page.complete ? number(page.found) : `more than ${number(Math.max(0, page.found - 1))}`;
  const looked = page.complete ? "" : ` · ${Math.floor(page.scanned * 100)} % of the rows looked at`;
  $("count").textContent = page.rows.length ? `${number(page.begin + 1)} to ${number(end)} of ${total}${looked}` : `none${looked}`;
  $("previous").disabled = page.begin === 0;
  $("next").disabled = end >= page.found && page.complete;
}

function whyNothing(status) {
  if (page.found) return `This page lies behind the last one; there are ${number(page.found)} in all.`;
  if (about.statuses[status]) return "Nothing passes these filters.";
  if (status === "ok") return about.going ? "No sample is there yet." : "No sample is stored here.";
  return about.counted ? `Nothing was ${status}.` : "What was set aside stands in receipts, and there are none here.";
}

async function search(values) {
  const turn = ++asked;
  const filters = filtersOf(values);
  $("results").setAttribute("aria-busy", "true");
  try {
    do {
      const found = await ask("rows", filters); // of rare matches each answer brings what was found in a second or so
      if (turn !== asked) return;
      page = { ...found, filters: JSON.stringify(filters) };
      showPage();
    } while (!page.complete && page.rows.length < PAGE);
    complain(damage());
  } catch (error) {
    if (turn === asked) complain(error);
  } finally {
    $("results").removeAttribute("aria-busy");
  }
}

// --- the address: filters, page, and the sample that is enlarged ---

const ONLY = [".only-ok", ".only-quarantined"]; // parts of the page that belong to one status alone
const notOf = (status) => ONLY.filter((part) => part !== `.only-${status}`).join();

function address() {
  return { status: "ok", ...Object.fromEntries(new URLSearchParams(location.hash.slice(1))) };
}

// What is asked for at an address. Filters whose fields are hidden for its status decide nothing; they stay in the
// address, for when their fields are seen again.
function filtersOf(values) {
  const filters = { ...values, begin: Number(values.begin) || 0, count: PAGE };
  delete filters.key;
  delete filters.row;
  for (const field of $("filters").elements) {
    if (field.name && field.closest(notOf(values.status))) delete filters[field.name];
  }
  return filters;
}

function go(changes) {
  const values = new URLSearchParams(location.hash.slice(1));
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === "") values.delete(name);
    else values.set(name, value);
  }
  location.hash = values.toString();
}

async function follow() {
  const values = address();
  for (const element of $("filters").elements) {
    if (element.type === "radio") element.checked = element.value === values.status;
    else if (element.name && document.activeElement !== element) element.value = values[element.name] ?? "";
  }
  if (page.filters !== JSON.stringify(filtersOf(values))) await search(values);
  const { key, row = -1 } = address(); // by now perhaps another one
  if (key) await enlarge(key, row);
  else if ($("zoom").open) $("zoom").close();
}

// --- one sample, large ---

const zoom = { sample: null, view: null, playing: 0 };
let moved = Promise.resolve(); // the step to a neighbour that is under way

async function enlarge(key, row) {
  $("zoom-key").textContent = key;
  if (zoom.sample?.key === key && $("zoom").open) return;
  stop();
  if (!$("zoom").open) $("zoom").showModal();
  complain(null, $("zoom-fault"));
  try {
    const sample = await ask("sample", { row, key });
    if (address().key !== key) return; // the next one is wanted by now
    zoom.sample = sample;
    drawn = drawn.filter((view) => !view.zoomed);
    zoom.view = { sample, frame: 0, zoomed: true, step: 1, svg: canvasOf(sample, pictureUrl(sample, 0), true) };
    zoom.view.onFault = (error) => complain(error, $("zoom-fault"));
    zoom.view.svg.setAttribute("aria-label", `${sample.kind} ${key}`);
    drawn.push(zoom.view);
    $("stage").replaceChildren(zoom.view.svg);
    $("player").hidden = sample.num_frames === 1;
    $("seek").max = sample.num_frames - 1;
    showLineage(sample);
    await showFrame(0);
  } catch (error) {
    if (address().key !== key) return;
    zoom.sample = null;
    $("stage").replaceChildren();
    $("lineage").replaceChildren();
    $("player").hidden = true;
    complain(error, $("zoom-fault"));
  }
}

async function showFrame(frame) {
  const { sample, view } = zoom;
  const values = sample.frames[frame];
  view.frame = frame;
  view.svg.querySelector("image").setAttribute("href", pictureUrl(sample, frame));
  $("seek").value = frame;
  const time = values.time_s === null ? "" : ` · ${values.time_s.toFixed(2)} s`;
  $("frame-said").textContent = `${frame + 1} of ${sample.num_frames}${time}`;
  showSwitches($("zoom-switches"), values);
  await draw(view);
}

function showLineage(sample) {
  const parts = [];
  for (const { heading, name, value } of sample.lineage) {
    if (parts.at(-1)?.dataset.of !== heading) {
      parts.push(make("h3", {}, heading));
      parts.push(make("dl", { "data-of": heading }));
    }
    parts.at(-1).append(make("div", {}, make("dt", {}, name), make("dd", {}, value)));
  }
  $("lineage").replaceChildren(...parts);
}

// One step after the other, however quickly keys are pressed: the next page may have to be fetched between two of them.
function neighbour(step) {
  moved = moved.then(() => move(step)).catch((error) => complain(error, $("zoom-fault")));
}

// To the neighbour of the sample on this page, or on the page before or after. The address says which sample is wanted;
// the one that is shown may still be an older one.
async function move(step) {
  const { key } = address();
  if (!key) return; // closed meanwhile
  const place = page.rows.findIndex((row) => row.key === key);
  let next = page.rows[place + step];
  if (!next && place >= 0) {
    const begin = page.begin + step * PAGE;
    if (begin < 0 || (step > 0 && $("next").disabled)) return;
    await search({ ...address(), begin });
    next = page.rows[step > 0 ? 0 : page.rows.length - 1];
    if (next && page.begin === begin && address().key === key) go({ begin, key: next.key, row: next.number });
    else await follow(); // closed meanwhile: the page is that of the address again
  } else if (next) {
    go({ key: next.key, row: next.number });
  }
}

function step(by) {
  if (!zoom.sample || zoom.sample.num_frames === 1) return;
  const count = zoom.sample.num_frames;
  showFrame((zoom.view.frame + by + count) % count);
}

async function play() {
  if (zoom.playing) return stop();
  if (!zoom.sample || zoom.sample.num_frames === 1) return;
  const { sample } = zoom;
  const turn = (zoom.playing = Date.now());
  $("play").textContent = "Pause";
  $("play").setAttribute("aria-pressed", "true");
  const pause = 1000 / Math.min(30, Math.max(1, sample.fps || 6));
  while (zoom.playing === turn && zoom.sample === sample && $("zoom").open) {
    const next = (zoom.view.frame + 1) % sample.num_frames;
    const picture = new Image();
    picture.src = pictureUrl(sample, next);
    await Promise.all([picture.decode().catch(() => {}), new Promise((done) => setTimeout(done, pause))]);
    if (zoom.playing === turn && zoom.sample === sample) await showFrame(next);
  }
}

function stop() {
  zoom.playing = 0;
  $("play").textContent = "Play";
  $("play").setAttribute("aria-pressed", "false");
}

// Zooming changes what part of the frame the SVG shows.
function magnify(factor, x, y) {
  if (!zoom.sample) return;
  const { width, height } = zoom.sample;
  const box = zoom.view.svg.viewBox.baseVal;
  const side = Math.min(width, Math.max(width / 32, box.width / factor));
  const ratio = side / box.width;
  const [cx, cy] = [x ?? box.x + box.width / 2, y ?? box.y + box.height / 2];
  show(cx - (cx - box.x) * ratio, cy - (cy - box.y) * ratio, side, (side * height) / width);
}

function show(x, y, width, height) {
  const { width: most, height: highest } = zoom.sample;
  const left = Math.min(Math.max(0, x), most - width), top = Math.min(Math.max(0, y), highest - height);
  zoom.view.svg.setAttribute("viewBox", `${left} ${top} ${width} ${height}`);
}

function pointOf(event) {
  const matrix = zoom.view.svg.getScreenCTM().inverse();
  return new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix);
}

// --- switches and sliders ---

function showSwitches(where, frame = null) {
  const rows = [...ORDER].reverse().concat("masks").map((layer) => {
    const { stored } = about;
    const inAll = layer === "proposals" ? stored.proposals - stored.negatives : stored[layer]; // as the layers part them
    const count = frame ? frame.layers[layer]?.length : about.counted ? inAll : undefined;
    return switchOf(layer, NAMES[layer], layer, frame && layer === "objects" && !frame.annotated ? "not annotated" : count);
  });
  for (const { name, producer, boxes, damaged } of about.sidecars) {
    if (boxes) rows.push(switchOf(`sidecar ${name}`, `sidecar ${name}`, "sidecar", producer));
    else if (!frame) rows.push(make("p", { class: "switch" }, damaged || `sidecar ${name}: no boxes`));
  }
  where.replaceChildren(...rows);
}

function switchOf(layer, label, look, count) {
  const box = make("input", { type: "checkbox", checked: shown[layer] ?? false, "data-layer": layer });
  const swatch = make("i", { class: `swatch ${look}` });
  if (look !== "objects" && look !== "masks") swatch.style.borderColor = colourOf(look);
  const said = count === undefined ? "" : typeof count === "number" ? number(count) : count;
  return make("label", { class: "switch" }, box, swatch, make("span", {}, label), make("span", { class: "count" }, said));
}

function drawAll() {
  for (const view of drawn) draw(view);
}

function slide(best) {
  limits.best = Number(best);
  const said = limits.best >= MOST_BOXES ? "all" : String(limits.best);
  for (const [slider, output] of [["best", "best-said"], ["zoom-best", "zoom-best-said"]]) {
    $(slider).value = limits.best;
    $(slider).setAttribute("aria-valuetext", said);
    $(output).textContent = said;
  }
  drawAll();
}

// --- the head ---

function showAbout() {
  document.title = `${about.url} · Trackmill view`;
  $("title").textContent = about.url;
  const { statuses, stored } = about;
  const figures = [["samples", about.samples], ["frames", stored.frames], ["shards", about.shards]];
  if (about.counted) {
    figures.push(["objects", stored.objects], ["proposals", stored.proposals], ["negatives", stored.negatives]);
    figures.push(["quarantined", statuses.quarantined]);
  }
  const figure = ([name, count]) => make("div", {}, make("dt", {}, name), make("dd", {}, number(count ?? 0)));
  $("figures").replaceChildren(...figures.map(figure));
  $("going").hidden = !about.going;
  $("going-text").textContent = `There is no manifest yet: this is what the receipts say that were there when it was last looked at.`;
  const offered = (list, all) => [make("option", { value: "" }, all), ...list.map(({ name, count }) => make("option", { value: name }, `${name} (${number(count)})`))];
  $("filters").elements.source.replaceChildren(...offered(about.sources, "all"));
  $("filters").elements.reason.replaceChildren(...offered(about.reasons, "all"));
  complain(damage());
  showSwitches($("switches"));
}

async function begin() {
  try {
    about = await ask("about");
    showAbout();
    await follow();
  } catch (error) {
    complain(error);
  }
}

// --- what people do ---

function filtersChanged() {
  const values = Object.fromEntries(new FormData($("filters")));
  if (values.status === "ok") values.status = "";
  go({ ...values, begin: null });
}

let typing = 0;
$("filters").addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(filtersChanged, ["search", "number"].includes(event.target.type) ? 350 : 0);
});
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("layers").addEventListener("submit", (event) => event.preventDefault());
$("filters").addEventListener("reset", () => setTimeout(filtersChanged));
$("previous").addEventListener("click", () => go({ begin: Math.max(0, page.begin - PAGE) || null }));
$("next").addEventListener("click", () => go({ begin: page.begin + PAGE }));
$("again").addEventListener("click", async () => {
  try {
    about = await ask("about", { again: 1 });
    showAbout();
    page.filters = "";
    await follow();
  } catch (error) {
    complain(error);
  }
});
for (const where of ["switches", "zoom-switches"]) {
  $(where).addEventListener("change", ({ target }) => {
    shown[target.dataset.layer] = target.checked;
    for (const box of document.querySelectorAll("[data-layer]")) box.checked = shown[box.dataset.layer] ?? false;
    drawAll();
  });
}
for (const slider of ["best", "zoom-best"]) $(slider).addEventListener("input", ({ target }) => slide(target.value));
$("score").addEventListener("input", ({ target }) => {
  limits.score = Number(target.value);
  $("score-said").textContent = limits.score.toFixed(2);
  drawAll();
});

// Arrows go from card to card, in the lines of the grid as they lie on this screen.
$("grid").addEventListener("keydown", (event) => {
  const cards = [...$("grid").querySelectorAll(".card")];
  const at = cards.indexOf(document.activeElement);
  if (at < 0) return;
  const columns = Math.max(1, cards.findIndex((card) => card.offsetTop > cards[0].offsetTop));
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
  const next = by && cards[at + by];
  if (!next) return;
  event.preventDefault();
  next.focus();
});

$("zoom").addEventListener("keydown", (event) => {
  if (event.target.matches("input") && event.key !== "Escape") return;
  const act = {
    ArrowLeft: () => neighbour(-1), ArrowRight: () => neighbour(1), ArrowUp: () => step(-1), ArrowDown: () => step(1),
    "+": () => magnify(1.5), "=": () => magnify(1.5), "-": () => magnify(1 / 1.5), 0: () => magnify(0),
  }[event.key] ?? (event.key === " " && !event.target.matches("button") ? play : null);
  if (!act) return;
  event.preventDefault();
  act();
});
$("zoom").addEventListener("close", () => {
  stop();
  const { key } = address();
  zoom.sample = null;
  drawn = drawn.filter((view) => !view.zoomed);
  if (key) go({ key: null, row: null });
  [...$("grid").querySelectorAll(".card")].find((card) => card.row.key === key)?.focus();
});
$("close").addEventListener("click", () => $("zoom").close());
$("before").addEventListener("click", () => neighbour(-1));
$("after").addEventListener("click", () => neighbour(1));
$("closer").addEventListener("click", () => magnify(1.5));
$("farther").addEventListener("click", () => magnify(1 / 1.5));
$("whole").addEventListener("click", () => magnify(0));
$("play").addEventListener("click", play);
$("back").addEventListener("click", () => step(-1));
$("forth").addEventListener("click", () => step(1));
$("seek").addEventListener("input", ({ target }) => { stop(); showFrame(Number(target.value)); });
$("stage").addEventListener("pointerover", ({ target }) => { if (target.dataset?.title) $("hover").textContent = target.dataset.title; });
$("stage").addEventListener("wheel", (event) => {
  if (!zoom.sample) return;
  event.preventDefault();
  const { x, y } = pointOf(event);
  magnify(event.deltaY < 0 ? 1.25 : 0.8, x, y);
}, { passive: false });
$("stage").addEventListener("pointerdown", (event) => {
  if (!zoom.sample) return;
  $("stage").setPointerCapture(event.pointerId);
  let last = pointOf(event);
  const drag = (moved) => {
    const now = pointOf(moved), box = zoom.view.svg.viewBox.baseVal;
    show(box.x - (now.x - last.x), box.y - (now.y - last.y), box.width, box.height);
    last = pointOf(moved);
  };
  $("stage").addEventListener("pointermove", drag);
  const end = () => $("stage").removeEventListener("pointermove", drag);
  $("stage").addEventListener("pointerup", end, { once: true });
  $("stage").addEventListener("pointercancel", end, { once: true });
});
$("skip").addEventListener("click", (event) => { event.preventDefault(); $("results").focus(); });
const narrow = matchMedia("(max-width: 860px)");
const fold = () => { $("panel").open = !narrow.matches; };
narrow.addEventListener("change", fold);
fold();
window.addEventListener("hashchange", follow);
begin();
