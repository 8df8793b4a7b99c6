// The card of one record in the list.

import { chip, offered } from "./conditions.js";
import { dateOf, dayName, monthName } from "./dates.js";
import { button, el, icon, percent } from "./dom.js";
import { coverOf, picture, player, titleOf, wordsOf } from "./media.js";

const NAMES = { text: "words", image: "picture", audio: "sound", video: "video" };
// Metadata shown on a card; the opened record shows the rest.
const ON_CARD = ["year", "tag", "tags", "keywords", "camera"];
const CHIPS = 4;

// `on`: open, select, similar, more and less are called with the record, narrow with a filter, month with a month;
// kind maps the name of a cue to its modality.
export function cardOf(record, on, selected) {
  const name = titleOf(record);
  const open = el("button", { type: "button", class: "card-title", dir: "auto", onclick: () => on.open(record) }, name);
  const box = el("input", {
    type: "checkbox",
    class: "select",
    checked: selected,
    "aria-label": `Select ${name}`,
    onclick: (event) => on.select(record, event.target.checked, event.shiftKey),
  });
  const card = el(
    "article",
    { class: selected ? "card selected" : "card", "aria-label": name },
    cover(record, name, on),
    el(
      "div",
      { class: "card-text" },
      el("h3", {}, open),
      kinds(record, on),
      record.probability === undefined ? null : likely(record),
      record.shares ? shares(record.shares, on.kind) : null,
      el(
        "div",
        { class: "card-tools" },
        button("more", "More like this", () => on.more(record), { "aria-label": `More like this: ${name}`, title: "More like this" }),
        button("less", "Not this", () => on.less(record), { "aria-label": `Not this: ${name}`, title: "Not this" }),
      ),
    ),
    box,
  );
  return card;
}

function cover(record, name, on) {
  const part = coverOf(record);
  if (!part) return null;
  if (part.modality === "text") {
    const words = wordsOf(record);
    // a short text is the title already
    return words.length > 90 ? el("blockquote", { class: "quote", dir: "auto" }, words.slice(0, 400)) : null;
  }
  const sound = record.parts.find((one) => one.modality === "audio" && one.digest !== part.digest);
  const pressed = (event) => (event.shiftKey || event.ctrlKey || event.metaKey ? on.select(record, !on.selected(record), event.shiftKey) : on.open(record));
  return el(
    "div",
    { class: `cover ${part.modality}` },
    part.modality === "video" ? null : el("div", { class: "frame", onclick: pressed }, picture(part, name)),
    part.modality === "image" ? null : player(part, name),
    sound && part.modality !== "audio" ? player(sound, name) : null,
    button("similar", `Find similar to ${name}`, () => on.similar(record, part), { shown: false, kind: "similar", title: "Find similar" }),
  );
}

function kinds(record, on) {
  const modalities = Object.keys(NAMES).filter((kind) => record.parts.some((part) => part.modality === kind));
  const file = record.metadata?.name;
  const date = dateOf(record);
  // the date says its year already
  const offers = offered(record.metadata, ON_CARD).filter(([key, value]) => key !== "year" || value !== date.slice(0, 4)).slice(0, CHIPS);
  return el(
    "p",
    { class: "kinds" },
    modalities.map((kind) =>
      el("button", { type: "button", class: "kind", title: `Only with ${NAMES[kind]}`, "aria-label": `Only with ${NAMES[kind]}`, onclick: () => on.narrow({ has: kind }) }, icon(kind)),
    ),
    date ? when(date, on.month) : null,
    typeof file === "string" && file && file !== titleOf(record) ? el("span", { dir: "auto" }, file) : null,
    offers.map((offer) => chip(offer, on.narrow)),
  );
}

// A date, which leads to its month.
export function when(date, month) {
  const its = date.slice(0, 7);
  const time = el("time", { datetime: date.slice(0, 10) }, dayName(date.slice(0, 10)));
  return el("button", { type: "button", class: "when", title: `All of ${monthName(its)}`, onclick: () => month(its) }, time);
}

function likely(record) {
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
      const share = shareOf[name] ?? 0;
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
