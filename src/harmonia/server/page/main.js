// The entry point of the page: sends cues to the server and shows the results.

import * as api from "./api.js";
import { Adder } from "./add.js";
import { Cues } from "./cues.js";
import { $, button, el, icon, percent, plural, say } from "./dom.js";
import { watchDrops } from "./dropzone.js";
import { Filters } from "./filters.js";
import { openImagined } from "./imagined.js";
import { askKey } from "./api-key-form.js";
import { listen, openHelp } from "./shortcuts.js";
import { absent } from "./media.js";
import { openMicrophone } from "./microphone.js";
import { openRecord } from "./record.js";
import { openReport } from "./report.js";
import { openRecallDetails } from "./recall-details.js";
import { openSketch } from "./sketch.js";
import { ResultList } from "./results.js";

const PAGE = 24;
// Milliseconds between the last change of a control and the next request.
const REST = 250;

const words = $("#words");
const status = $("#status");
const tools = $("#results-tools");
const note = $("#note");
const more = $("#more");

const cues = new Cues($("#cues"), { changed: () => later(), edit: (text) => {
  words.value = text;
  fit();
  words.focus();
  later();
} });
const filters = new Filters($("#filter-form"), $("#filters-set"), () => later());
const onCard = {
  open: (record) => openRecord(record, { ...onCard, kind: (name) => cues.modalityOf(name), forgotten: () => refresh() }),
  more: (record, name) => cues.addRecord(record.id, name),
  less: (record, name) => cues.addRecord(record.id, name, true),
};
const results = new ResultList($("#result-list"), { ...onCard, kind: (name) => cues.modalityOf(name) });
const adder = new Adder({
  badge: $("#add").appendChild(el("span", { class: "count", "aria-hidden": "true" })),
  added: () => refresh(),
  open: onCard.open,
});

// Only the latest request counts: a new request aborts the running one.
let running = new AbortController();
let timer = 0;

function later() {
  clearTimeout(timer);
  timer = setTimeout(refresh, REST);
}

async function refresh() {
  clearTimeout(timer);
  running.abort();
  running = new AbortController();
  const { signal } = running;
  const section = $("#results");
  section.setAttribute("aria-busy", "true");
  try {
    await (cues.empty ? browse(signal) : recall(signal));
  } catch (error) {
    if (error.name === "AbortError") return;
    results.show([]);
    head(cues.empty ? "Your memories" : "What came back", "");
    note.replaceChildren(failed(error));
    say(error.message);
  }
  if (!signal.aborted) section.removeAttribute("aria-busy");
}

const failed = (error) => {
  const box = absent(error.message);
  box.classList.add("failed");
  box.append(button("recall", "Try again", () => refresh()));
  return box;
};

function head(title, line, ...buttons) {
  $("#results-title").textContent = title;
  status.textContent = line;
  tools.replaceChildren(...buttons);
  note.replaceChildren();
  more.replaceChildren();
}

async function recall(signal) {
  if (!$("#result-list").children.length) results.wait();
  status.textContent = "Recalling…";
  const asked = cues.asked();
  const begun = performance.now();
  const { k, ...condition } = filters.asked();
  const answer = await api.recall(asked, { k, ...condition, explain: true }, signal);
  const took = Math.round(performance.now() - begun);
  const records = filters.keep(answer.records);
  const name = asked.map((cue) => cue.name).join(", ");
  filters.learn(records);
  results.show(records);
  const line = records.length
    ? `${plural(records.length, "memory", "memories")}, the most probable first (${took} ms)`
    : "No memory passes the filters.";
  head(
    "What came back",
    line,
    button("landscape", "How it settled", () => openRecallDetails(asked, answer.certificate)),
    button("imagine", "Imagine a picture", () => openImagined(asked, name, condition)),
  );
  if (answer.abstained && records.length) note.replaceChildren(abstained(answer.certificate));
  if (filters.canShowMore && answer.records.length >= k) more.append(button("add", "Show more", () => filters.more()));
}

const abstained = (certificate) =>
  el(
    "div",
    { class: "abstained" },
    icon("alert"),
    el(
      "p",
      {},
      el("strong", {}, "Nothing here matches. "),
      `With a probability of ${percent(certificate.nothing)} no memory belongs to this. The nearest ones are below, as guesses.`,
    ),
  );

async function browse(signal) {
  if (!$("#result-list").children.length) results.wait();
  const page = await api.records({ limit: PAGE, signal });
  if (!page.data.length) {
    results.show([]);
    head("Nothing is remembered yet", "");
    note.replaceChildren(welcome());
    return;
  }
  filters.learn(page.data);
  results.show(page.data);
  head("Your memories", "The latest first. Ask with any part of one.");
  offerMore(page, signal);
}

function offerMore(page, signal) {
  more.replaceChildren();
  if (!page.has_more) return;
  const next = button("add", "Show more", async () => {
    next.disabled = true;
    try {
      const following = await api.records({ limit: PAGE, after: page.last_id, signal });
      const first = $("#result-list").children.length;
      results.add(following.data);
      offerMore(following, signal);
      $(".card-title", $("#result-list").children[first])?.focus();
    } catch (error) {
      if (error.name !== "AbortError") more.replaceChildren(failed(error));
    }
  });
  more.append(next);
}

const welcome = () =>
  el(
    "div",
    { class: "welcome", "data-drop": "add" },
    el("div", { class: "welcome-art", "aria-hidden": "true" }, ["image", "audio", "text", "video"].map((name) => icon(name))),
    el("p", { class: "welcome-title" }, "Drop something here"),
    el("p", {}, "Photos, sounds, videos and notes. Later a few words, a sketch or a hummed tune brings them back."),
    button("add", "Choose what to remember", () => adder.show(), { kind: "go" }),
  );

function submitWords() {
  clearTimeout(timer);
  const text = words.value;
  words.value = "";
  fit();
  if (text.trim()) cues.addWords(text);
  refresh();
}

function fit() {
  // only for browsers without field-sizing
  words.rows = Math.min(6, Math.max(1, words.value.split("\n").length));
}

function cueFiles(files) {
  const refused = files.filter((file) => !cues.addFile(file));
  if (!refused.length) return;
  const text = `${refused[0].name} is not a picture, sound or video.`;
  status.textContent = text;
  say(text);
}

function pick(accept) {
  const input = $("#picked");
  input.accept = accept;
  input.click();
}

const sketch = () => openSketch((file) => cues.addFile(file, "sketch"));
const microphone = () => openMicrophone((file) => cues.addFile(file, "recording"));
const colours = () => say(`Colours: ${window.nextTheme()}`);
const help = () => openHelp(actions);
const actions = {
  "/": ["go to the words", () => words.focus()],
  a: ["remember something", () => adder.show()],
  s: ["sketch", sketch],
  m: ["record a sound", microphone],
  f: ["filters", () => {
    $("#filters").open = !$("#filters").open;
    $("#filters summary").focus();
  }],
  x: ["take all cues away", () => {
    cues.clear();
    refresh();
  }],
  r: ["the memory's report", () => openReport()],
  t: ["colours: as the system, light, dark", colours],
  "?": ["these shortcuts", help],
};

api.onMissingKey(askKey);
listen(actions);
watchDrops({ cue: cueFiles, add: (files) => adder.add(files) });
$("#cue-box").addEventListener("submit", (event) => {
  event.preventDefault();
  submitWords();
});
words.addEventListener("input", fit);
words.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submitWords();
});
for (const way of document.querySelectorAll("[data-pick]")) way.addEventListener("click", () => pick(way.dataset.pick));
$("#picked").addEventListener("change", (event) => {
  cueFiles([...event.target.files]);
  event.target.value = "";
});
$("#sketch").addEventListener("click", sketch);
$("#microphone").addEventListener("click", microphone);
$("#add").addEventListener("click", () => adder.show());
$("#report").addEventListener("click", () => openReport());
$("#theme").addEventListener("click", colours);
$("#help").addEventListener("click", help);
refresh();
