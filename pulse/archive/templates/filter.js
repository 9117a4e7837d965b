// The list on disk has no server, so it loads those files in list/ that it needs.
"use strict";
const PAGE = 200, ROWS = 500;
const form = document.querySelector(".filter"), list = document.querySelector("#list"), count = document.querySelector("#count");
const before = [...list.childNodes], counted = count.textContent;
const files = {}, rows = {}, terms = {};
let facets, turn = 0;
window.archive = {
  facets: data => facets = data,
  rows: (number, data) => rows[number] = data,
  words: (name, data) => terms[name] = data,
};
const load = file => files[file] ??= new Promise(done => {
  const script = document.createElement("script");
  script.src = `list/${file}.js`;
  script.onload = script.onerror = done;
  document.head.append(script);
});

// Words and numbers as the index keeps them: see pulse/archive/words.py.
const GAP = "[ \u00a0\u202f]";
function spellings(word) {
  word = word.replace(/^[.,:/+]+|[.,:/+]+$/g, "").slice(0, 80);
  const found = new Set(/[^-_]/.test(word) ? [word] : []);
  if (/^-?[1-9]\d{0,2}(,\d{3})+(\.\d+)?$/.test(word)) found.add(word.replaceAll(",", ""));
  if (/^-?\d+,\d+$/.test(word)) found.add(word.replace(",", "."));
  return [...found];
}
function asked(text) {
  text = text.toLowerCase().replaceAll("−", "-");
  text = text.replace(new RegExp(`(?<![\\w.,])([-+]?\\d{1,3}(?:${GAP}\\d{3})+(?:[.,]\\d+)?)(?!\\d)`, "g"), number => number.replace(new RegExp(GAP, "g"), ""));
  return (text.match(/[-+]?[\p{L}\p{N}_@][\p{L}\p{N}_.,:/@+-]*/gu) ?? []).map(spellings).filter(found => found.length);
}
function decode(text) {
  let at = 0;
  return text.split(" ").map(step => at += parseInt(step, 36));
}
async function having(word) {
  const name = [...word].slice(0, 2).map(letter => letter.codePointAt(0).toString(16)).join("_");
  await load(`words-${name}`);
  const found = [];
  for (const [term, runs] of Object.entries(terms[name] ?? {}))
    if (term === word || ([...word].length > 2 && term.startsWith(word))) found.push(...decode(runs));
  return found;
}

async function filter() {
  const mine = ++turn, wanted = Object.fromEntries(new FormData(form));
  if (!Object.values(wanted).some(value => value.trim())) {
    list.replaceChildren(...before);
    count.textContent = counted;
    return;
  }
  await load("facets");
  const sets = await Promise.all(asked(wanted.text).map(async words => new Set((await Promise.all(words.map(having))).flat())));
  if (mine !== turn) return;
  const is = (kind, run) => facets[kind + "s"][facets[kind][run]];
  const none = wanted.text.trim() && !sets.length;
  const found = facets.day.map((_, run) => run).filter(run => !none
    && (!wanted.first || is("day", run) >= wanted.first) && (!wanted.last || is("day", run) <= wanted.last)
    && (!wanted.dag || is("dag", run) === wanted.dag) && (!wanted.notebook || is("notebook", run) === wanted.notebook)
    && (!wanted.outcome || is("outcome", run) === wanted.outcome
      || (wanted.outcome === "not succeeded" && !["succeeded", "no end recorded"].includes(is("outcome", run))))
    && sets.every(set => set.has(run)));
  await show(found, PAGE, mine);
}
async function show(found, most, mine) {
  const shown = found.slice(0, most);
  await Promise.all([...new Set(shown.map(run => Math.floor(run / ROWS)))].map(number => load(`rows-${number}`)));
  if (mine !== turn) return;
  const page = document.createDocumentFragment();
  let day, dag, section, runs;
  for (const run of shown) {
    if (facets.day[run] !== day) {
      section = make("section", "day", page);
      make("h2", "", section).textContent = facets.titles[facets.day[run]];
      dag = undefined;
    }
    if (facets.dag[run] !== dag) {
      const group = make("details", "group", section);
      group.open = true;
      make("span", "group-name", make("summary", "", group)).textContent = facets.dags[facets.dag[run]];
      runs = make("ul", "runs", group);
    }
    day = facets.day[run], dag = facets.dag[run];
    runs.insertAdjacentHTML("beforeend", rows[Math.floor(run / ROWS)][run % ROWS]);
  }
  if (!found.length) make("p", "nothing", page).textContent = "Nothing matches: remove a word or a date from the filter.";
  if (found.length > most) {
    const more = make("button", "", make("nav", "turn", page));
    more.textContent = "more";
    more.onclick = () => show(found, most + PAGE, turn);
  }
  list.replaceChildren(page);
  count.textContent = `${found.length.toLocaleString("en")} run${found.length === 1 ? "" : "s"}`;
}
function make(name, kind, parent) {
  const element = document.createElement(name);
  element.className = kind;
  return parent.appendChild(element);
}
form.addEventListener("input", filter);
form.addEventListener("submit", event => event.preventDefault());
if (Object.values(Object.fromEntries(new FormData(form))).some(value => value.trim())) filter();
