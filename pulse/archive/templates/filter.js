// The list on disk has no server to ask: it hides what does not fit.
"use strict";
const form = document.querySelector(".filter");
const runs = [...document.querySelectorAll(".run")].map(element => ({
  element,
  day: element.closest(".day").dataset.day,
  words: (element.textContent + " " + Object.values(element.dataset).join(" ")).toLowerCase(),
}));
function fits(run, wanted) {
  const { dag, notebook, outcome } = run.element.dataset;
  return (!wanted.first || run.day >= wanted.first) && (!wanted.last || run.day <= wanted.last)
    && (!wanted.dag || dag === wanted.dag) && (!wanted.notebook || notebook === wanted.notebook)
    && (!wanted.outcome || outcome === wanted.outcome
      || (wanted.outcome === "not succeeded" && !["succeeded", "running"].includes(outcome)))
    && wanted.text.toLowerCase().split(/\s+/).every(word => run.words.includes(word));
}
function filter() {
  const wanted = Object.fromEntries(new FormData(form));
  let shown = 0;
  for (const run of runs) {
    run.element.hidden = !fits(run, wanted);
    shown += !run.element.hidden;
  }
  for (const group of document.querySelectorAll(".group, .day")) group.hidden = !group.querySelector(".run:not([hidden])");
  if (Object.values(wanted).some(Boolean)) for (const group of document.querySelectorAll(".group")) group.open = true;
  document.querySelector("#count").textContent = `${shown.toLocaleString("en")} run${shown === 1 ? "" : "s"}`;
}
form.addEventListener("input", filter);
form.addEventListener("submit", event => event.preventDefault());
