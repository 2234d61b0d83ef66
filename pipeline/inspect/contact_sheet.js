// The sheet's own script: how many boxes are drawn, and one picture large. It asks nobody for anything, and the policy at
// the head of the file allows this script alone, by its hash.
"use strict";
(() => {
  const slider = document.getElementById("best"), said = document.getElementById("best-said");
  const dialog = document.getElementById("large"), stage = document.getElementById("stage");
  const main = document.querySelector("main");
  const buttons = [...document.querySelectorAll("button.enlarge")];
  const usual = Number(slider.defaultValue);
  let shown = null;

  function draw() {
    const best = Number(slider.value);
    said.textContent = best === Number(slider.max) ? "all" : String(best);
    slider.setAttribute("aria-valuetext", said.textContent);
    for (const box of document.querySelectorAll("rect[data-rank]")) box.toggleAttribute("hidden", Number(box.dataset.rank) >= best);
    main.classList.toggle("few", best < usual);
    dialog.classList.toggle("few", best < usual);
  }

  function enlarge(button) {
    shown = button;
    stage.replaceChildren(button.querySelector("svg").cloneNode(true));
    document.getElementById("large-key").textContent = button.getAttribute("aria-label");
    if (!dialog.open) dialog.showModal();
  }

  function step(by) {
    const next = buttons[buttons.indexOf(shown) + by];
    if (next) enlarge(next);
  }

  slider.addEventListener("input", draw);
  for (const button of buttons) button.addEventListener("click", () => enlarge(button));
  document.getElementById("before").addEventListener("click", () => step(-1));
  document.getElementById("after").addEventListener("click", () => step(1));
  document.getElementById("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", ({ target }) => { if (target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", ({ key }) => step({ ArrowLeft: -1, ArrowRight: 1 }[key] ?? 0));
  dialog.addEventListener("close", () => { stage.replaceChildren(); shown.focus(); });
  document.documentElement.classList.add("scripted");
  draw();
})();
