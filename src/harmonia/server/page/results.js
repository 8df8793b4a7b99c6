// The list of results, most probable first, as a masonry layout that keeps the DOM order.

import { button, el, icon, percent } from "./dom.js";
import { coverOf, picture, player, titleOf, wordsOf } from "./media.js";

const ROW = 4;
const GAP = 20;
// Metadata shown on a card; the opened record shows the rest.
const SHOWN_METADATA = ["name", "year", "date", "tag"];

// Sets the number of grid rows of a card. The observer reports heights, so no layout is forced here.
const heights = new ResizeObserver((entries) => {
  for (const { target, borderBoxSize } of entries) {
    target.parentElement.style.gridRowEnd = `span ${Math.ceil((borderBoxSize[0].blockSize + GAP) / ROW)}`;
  }
});

export class ResultList {
  // `open`, `more` and `less` are called with the record of a card; `kind` maps the name of a cue to its modality.
  constructor(list, { open, more, less, kind }) {
    this.list = list;
    this.on = { open, more, less, kind };
    list.addEventListener("keydown", (event) => this.#arrow(event));
  }

  show(records) {
    heights.disconnect();
    this.list.replaceChildren();
    this.add(records);
  }

  add(records) {
    const cards = records.map((record) => this.#card(record));
    this.list.append(...cards);
    for (const item of cards) heights.observe(item.firstChild);
  }

  // Shows grey placeholder cards while the first answer loads.
  wait(count = 6) {
    heights.disconnect();
    this.list.replaceChildren(
      ...Array.from({ length: count }, () => el("li", { class: "cell ghost", "aria-hidden": "true" }, el("div", { class: "card" }))),
    );
  }

  #card(record) {
    const name = titleOf(record);
    const open = el("button", { type: "button", class: "card-title", dir: "auto", onclick: () => this.on.open(record) }, name);
    const card = el(
      "article",
      { class: "card", "aria-label": name },
      this.#cover(record, name),
      el(
        "div",
        { class: "card-text" },
        el("h3", {}, open),
        kinds(record),
        record.probability === undefined ? null : likely(record),
        record.shares ? shares(record.shares, this.on.kind) : null,
        el(
          "div",
          { class: "card-tools" },
          button("more", "More like this", () => this.on.more(record, name), { "aria-label": `More like this: ${name}` }),
          button("less", "Not this", () => this.on.less(record, name), { "aria-label": `Not this: ${name}` }),
        ),
      ),
    );
    return el("li", { class: "cell" }, card);
  }

  #cover(record, name) {
    const part = coverOf(record);
    if (!part) return null;
    if (part.modality === "text") {
      const words = wordsOf(record);
      // a short text is the title already
      return words.length > 90 ? el("blockquote", { class: "quote", dir: "auto" }, words.slice(0, 400)) : null;
    }
    const sound = record.parts.find((one) => one.modality === "audio" && one.digest !== part.digest);
    return el(
      "div",
      { class: `cover ${part.modality}` },
      part.modality === "video" ? null : el("div", { class: "frame", onclick: () => this.on.open(record) }, picture(part, name)),
      part.modality === "image" ? null : player(part, name),
      sound && part.modality !== "audio" ? player(sound, name) : null,
    );
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

export function kinds(record) {
  const names = { text: "words", image: "picture", audio: "sound", video: "video" };
  const modalities = Object.keys(names).filter((kind) => record.parts.some((part) => part.modality === kind));
  const tags = SHOWN_METADATA.map((key) => record.metadata?.[key]).filter((value) => value !== undefined && value !== null && value !== titleOf(record));
  return el(
    "p",
    { class: "kinds" },
    modalities.map((kind) => el("span", { class: "kind", title: names[kind] }, icon(kind), el("span", { class: "unseen" }, `${names[kind]} `))),
    tags.map((value) => el("span", { class: "tag", dir: "auto" }, String(value))),
  );
}

export function likely(record) {
  const bar = el("span", { class: "bar", "aria-hidden": "true" }, el("span"));
  bar.firstChild.style.setProperty("--part", record.probability.toFixed(4));
  return el("p", { class: "likely" }, bar, el("span", { class: "number" }, percent(record.probability)), el("span", { class: "unseen" }, " probable"));
}

// The contribution of each cue. A negative share counts against the memory.
export function shares(shareOf, kind) {
  const names = Object.keys(shareOf);
  if (!names.length) return null;
  return el(
    "ul",
    { class: "shares", "aria-label": "What each cue contributed" },
    names.map((name) => {
      const share = shareOf[name];
      const bar = el("span", { class: share < 0 ? "bar against" : "bar", "aria-hidden": "true" }, el("span"));
      bar.firstChild.style.setProperty("--part", Math.min(1, Math.abs(share)).toFixed(4));
      return el(
        "li",
        { title: name },
        icon(iconOf(kind(name))),
        el("span", { class: "share-name", dir: "auto" }, name),
        bar,
        el("span", { class: "number" }, `${share < 0 ? "−" : ""}${percent(Math.abs(share))}`),
      );
    }),
  );
}

const iconOf = (kind) => (kind === "record" ? "more" : kind);
