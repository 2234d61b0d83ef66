// Tracks of a video, one tracker beside the other, over the ground truth. Boxes come for some frames at a time and are
// drawn as SVG; names and numbers go into the document as text, never as HTML. The frame stands in the address.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const AT_ONCE = 50; // frames whose boxes are asked for together
const TRAIL = 30;
const $ = (id) => document.getElementById(id);
const chunks = new Map();
let about = null;
let views = [];
let at = 0; // number of the frame that is shown
let playing = 0;

async function ask(name, values = {}) {
  const answer = await fetch(`api/${name}?${new URLSearchParams(values)}`).catch(() => null);
  if (!answer) throw new Error("the viewer does not answer: is trackmill view still running?");
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(found.error || `the viewer answered with ${answer.status}`);
  return found;
}

function svg(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function complain(error) {
  $("fault").textContent = error ? error.message : "";
  $("fault").hidden = !error;
}

// The boxes of a frame; the chunk it lies in is asked for once, and old chunks are forgotten.
async function boxesOf(number) {
  const begin = about.first + Math.floor((number - about.first) / AT_ONCE) * AT_ONCE;
  if (!chunks.has(begin)) {
    chunks.set(begin, ask("tracks", { begin, count: AT_ONCE }));
    chunks.get(begin).catch(() => chunks.delete(begin));
    if (chunks.size > 20) chunks.delete(chunks.keys().next().value);
  }
  return (await chunks.get(begin)).frames[number];
}

function viewOf(side, index) {
  const { width, height } = about;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `frame with the boxes of ${side.name}` });
  picture.append(svg("image", { width, height, preserveAspectRatio: "none" }), svg("g", {}));
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

async function draw(number) {
  number = Math.min(about.last, Math.max(about.first, number));
  const turn = (at = number);
  const past = [];
  for (let back = $("trails").checked ? TRAIL : 0; back >= 0; back--) if (number - back >= about.first) past.push(boxesOf(number - back));
  const frames = await Promise.all(past);
  if (at !== turn) return; // another frame is wanted by now
  const now = frames.at(-1);
  for (const { picture, index } of views) {
    picture.querySelector("image").setAttribute("href", `api/frame?number=${number}`);
    const parts = $("gt").checked ? now.gt.map((entry) => rectOf(entry, "gt")) : [];
    for (const entry of now.sides[index]) {
      const way = frames.map((frame) => frame.sides[index].find(({ id }) => id === entry.id)?.box).filter(Boolean);
      if (way.length > 1) {
        const points = way.map((box) => `${(box[0] + box[2]) / 2},${box[3]}`).join(" ");
        parts.push(svg("polyline", { class: "trail", points, stroke: entry.colour }));
      }
      parts.push(rectOf(entry, "track"));
      if ($("ids").checked) {
        const size = about.width / 60;
        const tag = svg("text", { x: Math.max(0, entry.box[0]) + 2, y: Math.max(size, entry.box[1] - 3), "font-size": size, "stroke-width": size * 0.2, fill: entry.colour });
        tag.textContent = entry.id;
        parts.push(tag);
      }
    }
    picture.querySelector("g").replaceChildren(...parts);
  }
  $("seek").value = number;
  $("said").textContent = `frame ${number} of ${about.last} · ${((number - about.first) / about.fps).toFixed(2)} s`;
  history.replaceState(null, "", `#frame=${number}`);
}

const show = (number) => draw(number).then(() => complain(null), complain);

async function play() {
  if (playing) return stop();
  const turn = (playing = Date.now());
  $("play").textContent = "Pause";
  $("play").setAttribute("aria-pressed", "true");
  while (playing === turn) {
    const next = at >= about.last ? about.first : at + 1;
    const picture = new Image();
    picture.src = `api/frame?number=${next}`;
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
  $("moments-part").hidden = !about.moments.length;
  for (const { frame, said } of about.moments) {
    const item = document.createElement("li"), button = document.createElement("button");
    button.type = "button";
    button.textContent = `frame ${frame}: ${said}`;
    button.addEventListener("click", () => { stop(); show(frame); });
    item.append(button);
    $("moments").append(item);
  }
}

async function begin() {
  try {
    about = await ask("about");
    document.title = `${about.name} · Trackmill view`;
    $("title").textContent = about.url;
    $("seek").min = about.first;
    $("seek").max = about.last;
    $("gt").parentElement.hidden = about.ground_truth === null;
    views = about.sides.map(viewOf);
    showMoments();
    await draw(Number(new URLSearchParams(location.hash.slice(1)).get("frame")) || about.first);
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
