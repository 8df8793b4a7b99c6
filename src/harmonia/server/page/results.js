// The list of records: a masonry layout that keeps the DOM order, of which only the cards near the window are filled.

import { cardOf } from "./card.js";
import { monthName, monthOf } from "./dates.js";
import { $, el } from "./dom.js";

const ROW = 4;
const GAP = 20;
// Cards farther than this from the window are emptied; their places keep their heights.
const NEAR = "1600px 0px";

// Sets the number of grid rows of a card. The observer reports heights, so no layout is forced here.
const heights = new ResizeObserver((entries) => {
  for (const { target, borderBoxSize } of entries) {
    const height = borderBoxSize[0].blockSize;
    if (height && target.parentElement) target.parentElement.style.gridRowEnd = `span ${Math.ceil((height + GAP) / ROW)}`;
  }
});

export class ResultList {
  // `on` is that of card.js.
  constructor(list, on) {
    this.list = list;
    this.on = on;
    this.cells = new Map();
    this.headings = "";
    this.near = new IntersectionObserver((entries) => entries.forEach((entry) => this.#seen(entry)), { rootMargin: NEAR });
    list.addEventListener("keydown", (event) => this.#arrow(event));
  }

  // The records in the order of the list.
  get records() {
    return [...this.list.querySelectorAll(".cell")].map((cell) => this.cells.get(cell.dataset.id)).filter(Boolean);
  }

  // Where a record is in the list (-1: nowhere), and the one that many places after it.
  beside(id, places = 1) {
    const all = this.records;
    const at = all.findIndex((record) => record.id === id);
    return { at, next: at < 0 ? null : (all[at + places] ?? null) };
  }

  // Shows these records alone; with `headings` ("month" or "year") under the names of these.
  show(records, { headings = "" } = {}) {
    this.#clear();
    this.headings = headings;
    this.add(records);
  }

  // Adds records at the end; those that are there already are left out.
  add(records) {
    this.#insert(records, (cells) => this.list.append(...cells));
  }

  // Adds records at the beginning, and keeps what is seen where it is.
  addBefore(records) {
    const mark = $(".cell", this.list);
    const top = mark?.getBoundingClientRect().top;
    this.#insert(records, (cells) => this.list.prepend(...cells));
    if (mark) scrollBy(0, mark.getBoundingClientRect().top - top);
  }

  #insert(records, place) {
    const cells = records.filter((record) => !this.cells.has(record.id)).map((record) => this.#cell(record));
    place(cells);
    if (this.headings) this.#head();
    for (const cell of cells) this.near.observe(cell);
  }

  remove(id) {
    const cell = this.#place(id);
    if (!cell) return;
    this.#empty(cell);
    this.near.unobserve(cell);
    cell.remove();
    this.cells.delete(id);
    if (this.headings) this.#head();
  }

  // Marks the cards of selected records.
  mark(chosen) {
    for (const card of this.list.querySelectorAll(".card")) {
      const on = chosen(card.parentElement.dataset.id);
      card.classList.toggle("selected", on);
      $(".select", card).checked = on;
    }
  }

  // Brings a record into view, with the focus on its title.
  focus(id) {
    const cell = this.#place(id);
    if (!cell) return false;
    this.#fill(cell);
    cell.scrollIntoView({ block: "nearest" });
    $(".card-title", cell).focus({ preventScroll: true });
    return true;
  }

  // Shows grey placeholder cards while the first answer loads.
  wait(count = 6) {
    this.#clear();
    this.list.append(
      ...Array.from({ length: count }, () => el("li", { class: "ghost", "aria-hidden": "true" }, el("div", { class: "card" }))),
    );
  }

  get empty() {
    return this.cells.size === 0;
  }

  #clear() {
    heights.disconnect();
    this.near.disconnect();
    this.cells.clear();
    this.list.replaceChildren();
  }

  #place(id) {
    return this.cells.has(id) ? $(`.cell[data-id="${id}"]`, this.list) : null;
  }

  #cell(record) {
    this.cells.set(record.id, record);
    const cell = el("li", { class: "cell" });
    cell.dataset.id = record.id;
    cell.dataset.month = monthOf(record);
    this.#fill(cell);
    return cell;
  }

  #fill(cell) {
    if (cell.firstChild) return;
    const record = this.cells.get(cell.dataset.id);
    cell.append(cardOf(record, this.on, this.on.selected(record)));
    heights.observe(cell.firstChild);
  }

  #empty(cell) {
    if (!cell.firstChild) return;
    heights.unobserve(cell.firstChild);
    cell.replaceChildren();
  }

  #seen({ target, isIntersecting }) {
    if (!target.isConnected) return;
    if (isIntersecting) this.#fill(target);
    else if (!target.contains(document.activeElement) && !playing(target)) this.#empty(target);
  }

  // Puts the name of each month or year before its first record.
  #head() {
    for (const old of this.list.querySelectorAll(".month")) old.remove();
    let last = null;
    for (const cell of this.list.querySelectorAll(".cell")) {
      const month = cell.dataset.month;
      const name = this.headings === "year" ? month.slice(0, 4) || "No date" : monthName(month);
      if (name !== last) cell.before(el("li", { class: "month" }, el("h3", {}, name)));
      last = name;
    }
  }

  // Arrow keys move the focus: left and right in order, up and down to the nearest card.
  #arrow(event) {
    if (!event.key.startsWith("Arrow") && event.key !== "Home" && event.key !== "End") return;
    if (!event.target.matches(".card-title")) return;
    const all = [...this.list.querySelectorAll(".card-title")];
    const at = all.indexOf(event.target);
    const next = {
      ArrowRight: () => all[at + 1],
      ArrowLeft: () => all[at - 1],
      Home: () => all[0],
      End: () => all[all.length - 1],
      ArrowDown: () => beyond(all, event.target, 1),
      ArrowUp: () => beyond(all, event.target, -1),
    }[event.key]();
    if (!next) return;
    event.preventDefault();
    next.focus();
  }
}

const playing = (cell) => [...cell.querySelectorAll("audio, video")].some((one) => !one.paused);

// The nearest card below (1) or above (-1), preferably in the same column.
function beyond(all, from, direction) {
  const place = (node) => node.closest(".card").getBoundingClientRect();
  const here = place(from);
  let best = null;
  for (const node of all) {
    const there = place(node);
    const down = direction * (there.top - here.top);
    if (node === from || down <= 0) continue;
    const far = Math.abs(there.left - here.left) * 4 + down;
    if (!best || far < best.far) best = { node, far };
  }
  return best?.node;
}
