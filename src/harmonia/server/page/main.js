// The entry point of the page: brings the address, the cue box, the list and the viewer together.

import * as address from "./address.js";
import * as api from "./api.js";
import { Adder } from "./add.js";
import { askKey } from "./api-key-form.js";
import { Cues } from "./cues.js";
import { $, button, el, plural, say } from "./dom.js";
import { Endless } from "./endless.js";
import { Filters } from "./filters.js";
import { openImagined } from "./imagined.js";
import { takeInput } from "./input.js";
import * as messages from "./messages.js";
import { openRecallDetails } from "./recall-details.js";
import { openReport } from "./report.js";
import { ResultList } from "./results.js";
import { Selection } from "./selection.js";
import { Browsed, Recalled } from "./sources.js";
import { Timeline } from "./timeline.js";
import { Viewer } from "./viewer.js";

// Milliseconds between the last change of a control and the next request.
const REST = 250;
const BEST = "the most probable first";

const section = $("#results");
const note = $("#note");

const input = takeInput({
  words: (text) => cues.addWords(text),
  file: (file, label) => cues.addFile(file, label),
  submitted: () => refresh(),
  cleared: () => {
    cues.clear();
    refresh();
  },
  remember: (files) => (files ? adder.add(files) : adder.show()),
  selectAll: () => selection.all(),
  told: (text) => ($("#status").textContent = text),
});
const cues = new Cues($("#cues"), { changed: (dial = false) => later(dial), edit: (text) => {
  input.edit(text);
  later();
} });
const filters = new Filters($("#filter-form"), { count: $("#filters-set"), chips: $("#filter-chips"), changed: () => later() });
const on = {
  open: (record) => open(record),
  select: (record, chosen, range) => selection.set(record, chosen, range),
  selected: (record) => selection.has(record.id),
  similar: (record, part) => similar(record, part),
  more: (record) => leave(() => cues.addRecord(record)),
  less: (record) => leave(() => cues.addRecord(record, true)),
  narrow: (how) => leave(() => filters.narrow(how)),
  month: (month) => leave(() => jump(month)),
  kind: (name) => cues.modalityOf(name),
  forgotten: (record) => {
    viewer.hide();
    closed(null);
    forgotten(record);
  },
};
const list = new ResultList($("#result-list"), on);
const selection = new Selection($("#selection"), {
  shown: () => list.records,
  changed: () => list.mark(selection.has),
  similar: (records) => {
    selection.clear();
    cues.setRecords(records);
  },
  forgotten,
});
const timeline = new Timeline($("#timeline"), (month) => jump(month));
const endless = new Endless($("#more"), $("#before"), { list, next: (signal) => turnPage(signal), source: () => source });
const viewer = new Viewer({ ...on, around, place, stepped: (record) => opened(record, true), closed });
const adder = new Adder({
  badge: $("#add").appendChild(el("span", { class: "count", "aria-hidden": "true" })),
  added: () => refresh({ push: false }),
  open: (record) => open(record),
});

// What the list shows: where it comes from, the month that it begins at, and the months that there are.
let source = null;
let from = "";
let months = [];
let shownKey = null;
let listing = null;
// Only the latest request counts: a new request aborts the running one.
let running = new AbortController();
let timer = 0;
let replacing = true;

function later(replace = false) {
  clearTimeout(timer);
  replacing &&= replace;
  timer = setTimeout(() => refresh({ replace: replacing }), REST);
}

const asked = (id = "") => ({ cues: cues.held, ...filters.state, from: cues.empty ? from : "", open: id });

// Asks the server what the cues, the filters and the month are now, and makes it the page's address.
function refresh(how) {
  listing = load(how);
  return listing;
}

async function load({ push = true, replace = false, lost = [] } = {}) {
  clearTimeout(timer);
  replacing = true;
  running.abort();
  running = new AbortController();
  const { signal } = running;
  if (push) {
    address.go(asked(), { replace });
    if (!replace) scrollTo(0, 0);
  }
  shownKey = address.listKey();
  section.setAttribute("aria-busy", "true");
  endless.stop();
  try {
    await (cues.empty ? browse(signal) : recall(signal));
    if (lost.length) note.append(messages.lost(lost));
  } catch (error) {
    if (error.name === "AbortError") return;
    source = null;
    list.show([]);
    timeline.show([]);
    head(cues.empty ? "Your memories" : "What came back", "");
    note.replaceChildren(messages.failed(error, () => refresh({ push: false })));
    say(error.message);
  }
  if (signal.aborted) return;
  list.mark(selection.has);
  section.removeAttribute("aria-busy");
}

function head(title, line, ...tools) {
  document.title = cues.empty ? "Harmonia" : `${cues.held.map((cue) => cue.name).join(", ")} – Harmonia`;
  document.body.classList.toggle("answered", !cues.empty);
  $("#results-title").textContent = title;
  $("#status").textContent = line;
  $("#results-tools").replaceChildren(...tools);
  $("#answer").replaceChildren();
  note.replaceChildren();
}

const options = () => ({ ...filters.state, where: filters.condition, keeps: filters.keeps, selects: filters.wanted.length > 0 });

async function recall(signal) {
  if (list.empty) list.wait();
  $("#status").textContent = "Recalling…";
  await cues.findNames(signal);
  const given = cues.asked();
  const begun = performance.now();
  const found = new Recalled(given, options());
  const records = await found.next(signal);
  const took = Math.round(performance.now() - begun);
  source = found;
  timeline.show([]);
  filters.learn(records);
  list.show(records);
  const name = given.map((cue) => cue.name).join(", ");
  const { certificate } = found.answer;
  const order = messages.ORDERS[found.sort] ?? BEST;
  head(
    "What came back",
    records.length ? `${plural(records.length, "memory", "memories")}, ${order} (${took} ms)` : "No memory passes the filters.",
    button("landscape", "How it settled", () => openRecallDetails(given, certificate)),
    button("imagine", "Imagine a picture", () => openImagined(given, name, filters.condition ? { where: filters.condition } : {})),
  );
  if (found.answer.abstained && records.length) note.replaceChildren(messages.abstained(certificate));
  else $("#answer").replaceChildren(...messages.answer(found.answer.records.filter(filters.keeps), open));
  endless.watch(signal);
}

async function browse(signal) {
  if (list.empty) list.wait();
  const found = new Browsed(options());
  const counts = await found.count(signal);
  found.begin(counts, from);
  const records = await found.next(signal);
  source = found;
  months = counts;
  filters.learn(records);
  list.show(records, { headings: found.dated ? messages.headings(counts) : "" });
  if (!records.length && !found.more && !filters.condition && !filters.wanted.length) {
    timeline.show([]);
    head("Nothing is remembered yet", "");
    note.replaceChildren(messages.welcome(() => adder.show()));
    return;
  }
  head("Your memories", !records.length && !found.more ? "No memory passes the filters." : messages.counted(filters, months));
  timeline.show(filters.wanted.length ? [] : months);
  endless.watch(signal);
}

// The next page of the list.
async function turnPage(signal) {
  const records = await source.next(signal);
  filters.learn(records);
  list.add(records);
  if (!cues.empty) $("#status").textContent = `${plural(list.cells.size, "memory", "memories")}, ${BEST}`;
}

function jump(month) {
  cues.clear();
  from = month;
  refresh().then(() => section.scrollIntoView());
}

async function similar(record, part) {
  let whole = record;
  let position;
  if (part?.modality === "image") {
    try {
      // a list may hold some parts only: the number is that in the whole record
      whole = await api.record(record.id);
    } catch (error) {
      return say(error.message);
    }
    const at = whole.parts.findIndex((one) => one.modality === part.modality && one.digest === part.digest);
    position = at >= 0 ? at : undefined;
  }
  leave(() => cues.setRecords([whole], position));
}

// Closes the viewer, whose entry of the history stays for Back, and does what changes the list.
function leave(change) {
  viewer.hide();
  change();
}

function open(record) {
  viewer.show(record);
  opened(record);
}

const opened = (record, replace = false) => address.go(asked(record.id), { replace, viewer: replace ? history.state?.viewer : true });

function closed(record) {
  if (record) list.focus(record.id);
  if (history.state?.viewer) history.back();
  else address.go(asked(), { replace: true });
}

function place(record) {
  const { at } = list.beside(record.id);
  return at < 0 ? "" : `${(at + 1).toLocaleString("en")} of ${list.cells.size.toLocaleString("en")}${source?.more ? " so far" : ""}`;
}

// The record after or before another: in the list, on its next page, or as the server knows it.
async function around(record, direction, signal) {
  await listing;
  const find = () => list.beside(record.id, direction);
  while (find().at >= 0 && !find().next && direction > 0 && source?.more) if (!(await endless.load())) break;
  return find().next ?? (await source?.neighbour(record.id, direction, signal)) ?? null;
}

function forgotten(record, left = 0) {
  source?.forget(record.id);
  list.remove(record.id);
  selection.drop(record.id);
  if (!left) recount();
}

// After something was forgotten the months have other counts and begin elsewhere.
async function recount() {
  if (list.empty) return refresh({ push: false });
  if (!(source instanceof Browsed)) return;
  try {
    months = await source.count(running.signal);
  } catch {
    // the list is right all the same
    return;
  }
  timeline.show(filters.wanted.length ? [] : months);
  $("#status").textContent = messages.counted(filters, months);
}

// Shows what the present address asks, after Back, Forward and at first.
function arrive() {
  const { asked: wanted, lost } = address.here();
  const record = list.cells.get(wanted.open);
  if (address.listKey() !== shownKey) {
    cues.restore(wanted.cues);
    filters.set(wanted);
    from = wanted.from;
    refresh({ push: false, lost });
  }
  if (!wanted.open) viewer.hide();
  else if (record) viewer.record?.id === record.id || viewer.show(record);
  else viewer.showId(wanted.open);
}

api.onMissingKey(askKey);
addEventListener("popstate", arrive);
$("#report").addEventListener("click", () => openReport());
arrive();
