// Tracks of a video, one tracker beside the other, over the ground truth. Boxes come for some frames at a time and are
// drawn as SVG; names and numbers go into the document as text, never as HTML. The frame stands in the address. Frames
// are stepped through by their places, 0 and up, since the numbers of pictures may have gaps.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const AT_ONCE = 50; // frames whose boxes are asked for together
const TRAIL = 30;
const $ = (id) => document.getElementById(id);
const chunks = new Map();
let about = null;
let views = [];
let at = 0; // place of the frame that is shown
let size = { width: 16, height: 9 }; // of the newest frame that could be read
let wanted = new AbortController(); // ends what an older call of `draw` still waits for
let playing = 0;

async function ask(name, values = {}, signal = null) {
  const answer = await fetch(`api/${name}?${new URLSearchParams(values)}`, { signal }).catch(() => null);
  if (!answer) throw new Error("the viewer does not answer: is trackmill view still running?");
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(found.error || `the viewer answered with ${answer.status}`);
  return found;
}

function svg(name, attributes) {
  return set(document.createElementNS(SVG, name), attributes);
}

function set(element, attributes) {
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function complain(error) {
  $("fault").textContent = error ? error.message : "";
  $("fault").hidden = !error;
}

const numberAt = (place) => (about.numbers ? about.numbers[place] : about.first + place);

// The place of a frame; where it has no picture, of the one before it.
function placeOf(number) {
  const place = about.numbers ? about.numbers.findLastIndex((each) => each <= number) : Math.floor(number) - about.first;
  return Math.min(about.count - 1, Math.max(0, place));
}

// The boxes of a frame; the chunk it lies in is asked for once, and old chunks are forgotten.
async function boxesOf(place) {
  const begin = Math.floor(place / AT_ONCE) * AT_ONCE;
  if (!chunks.has(begin)) {
    chunks.set(begin, ask("tracks", { begin: numberAt(begin), count: AT_ONCE }));
    chunks.get(begin).catch(() => chunks.delete(begin));
    if (chunks.size > 20) chunks.delete(chunks.keys().next().value);
  }
  return (await chunks.get(begin)).frames[numberAt(place)];
}

function viewOf(side, index) {
  const picture = svg("svg", { role: "img", "aria-label": `frame with the boxes of ${side.name}` });
  picture.append(svg("image", { preserveAspectRatio: "none" }), svg("g", {}));
  const figure = document.createElement("figure"), caption = document.createElement("figcaption");
  caption.textContent = `${side.name}: ${side.tracks.toLocaleString("en")} tracks, ${side.boxes.toLocaleString("en")} boxes`;
  figure.append(picture, caption);
  $("sides").append(figure);
  return { picture, index };
}

function rectOf({ box, colour, title }, kind) {
  const [x0, y0, x1, y1] = box.map(Number);
  const rect = svg("rect", { class: `box ${kind}`, x: x0, y: y0, width: Math.max(0, x1 - x0), height: Math.max(0, y1 - y0) });
  if (kind === "track") rect.setAttribute("stroke", colour);
  const said = document.createElementNS(SVG, "title");
  said.textContent = kind === "gt" ? `ground truth ${title.split(":")[0]}` : title;
  rect.append(said);
  return rect;
}

async function draw(place) {
  at = Math.min(about.count - 1, Math.max(0, place));
  wanted.abort();
  const mine = (wanted = new AbortController());
  const number = numberAt(at);
  const past = [];
  for (let each = Math.max(0, at - ($("trails").checked ? TRAIL : 0)); each <= at; each++) past.push(boxesOf(each));
  let fault = null; // a picture that cannot be read keeps nobody from seeing the boxes
  const asked = ask("size", { number }, mine.signal).catch((error) => void (fault = error));
  const [measured, ...frames] = await Promise.all([asked, ...past]);
  if (wanted !== mine) return; // another frame is wanted by now
  size = measured ?? size;
  for (const view of views) drawSide(view, fault ? null : number, frames);
  $("seek").value = at;
  $("seek").setAttribute("aria-valuetext", `frame ${number}`);
  $("said").textContent = `frame ${number} of ${about.last} · ${(at / about.fps).toFixed(2)} s`;
  history.replaceState(null, "", `#frame=${number}`);
  complain(fault);
}

// One tracker's boxes on the last of some frames, and the way they came; sizes of pictures may differ.
function drawSide({ picture, index }, number, frames) {
  const { width, height } = size;
  const image = set(picture.querySelector("image"), { width, height });
  picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
  if (number === null) image.removeAttribute("href");
  else image.setAttribute("href", `api/frame?number=${number}`);
  const high = Math.max(width / 60, 11 / (picture.getScreenCTM()?.a || 1)); // of ids: to be read on narrow screens too
  const now = frames.at(-1);
  const parts = $("gt").checked ? now.gt.map((entry) => rectOf(entry, "gt")) : [];
  for (const entry of now.sides[index]) {
    const way = frames.map((frame) => frame.sides[index].find(({ id }) => id === entry.id)?.box).filter(Boolean);
    if (way.length > 1) {
      const points = way.map((box) => `${(box[0] + box[2]) / 2},${box[3]}`).join(" ");
      parts.push(svg("polyline", { class: "trail", points, stroke: entry.colour }));
    }
    parts.push(rectOf(entry, "track"));
    if ($("ids").checked) {
      const tag = svg("text", { x: Math.max(0, entry.box[0]) + 2, y: Math.max(high, entry.box[1] - 3), "font-size": high, "stroke-width": high * 0.2, fill: entry.colour });
      tag.textContent = entry.id;
      parts.push(tag);
    }
  }
  picture.querySelector("g").replaceChildren(...parts);
}

const show = (place) => draw(place).catch(complain);

async function play() {
  if (playing) return stop();
  const turn = (playing = Date.now());
  $("play").textContent = "Pause";
  $("play").setAttribute("aria-pressed", "true");
  while (playing === turn) {
    const next = at >= about.count - 1 ? 0 : at + 1;
    const picture = new Image();
    picture.src = `api/frame?number=${numberAt(next)}`;
    await Promise.all([picture.decode().catch(() => {}), new Promise((done) => setTimeout(done, 1000 / about.fps))]);
    if (playing === turn) await show(next);
  }
}

function stop() {
  playing = 0;
  $("play").textContent = "Play";
  $("play").setAttribute("aria-pressed", "false");
}

function showMoments() {
  $("moments-part").hidden = about.moments === null;
  $("no-moments").hidden = !about.no_moments;
  $("no-moments").textContent = about.no_moments;
  for (const { frame, said } of about.moments ?? []) {
    const item = document.createElement("li"), button = document.createElement("button");
    button.type = "button";
    button.textContent = `frame ${frame}: ${said}`;
    button.addEventListener("click", () => { stop(); show(placeOf(frame)); });
    item.append(button);
    $("moments").append(item);
  }
}

async function begin() {
  try {
    about = await ask("about");
    document.title = `${about.name} · Trackmill view`;
    $("title").textContent = about.url;
    $("seek").max = about.count - 1;
    $("gt").parentElement.hidden = about.ground_truth === null;
    views = about.sides.map(viewOf);
    showMoments();
    await draw(placeOf(Number(new URLSearchParams(location.hash.slice(1)).get("frame")) || about.first));
  } catch (error) {
    complain(error);
  }
}

$("play").addEventListener("click", play);
$("back").addEventListener("click", () => { stop(); show(at - 1); });
$("forth").addEventListener("click", () => { stop(); show(at + 1); });
$("seek").addEventListener("input", ({ target }) => { stop(); show(Number(target.value)); });
$("switches").addEventListener("change", () => show(at));
$("switches").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("keydown", (event) => {
  if (!about || event.target.matches("input[type=range]") || event.ctrlKey || event.metaKey || event.altKey) return;
  const act = { ArrowLeft: () => { stop(); show(at - 1); }, ArrowRight: () => { stop(); show(at + 1); } }[event.key]
    ?? (event.key === " " && !event.target.matches("button, input") ? play : null);
  if (!act) return;
  event.preventDefault();
  act();
});
begin();
