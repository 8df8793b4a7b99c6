// What is known of one record: why it came back, its words, date, place and metadata, and what can be done with it.

import * as api from "./api.js";
import { shares } from "./card.js";
import { chip, keysOf, offered } from "./conditions.js";
import { dateOf, dayName, monthName, placeName } from "./dates.js";
import { button, el, percent } from "./dom.js";
import { openImagined } from "./imagined.js";
import { absent, coverOf, titleOf } from "./media.js";

// `found` is the record as a list has it, `record` the whole one; `on` is that of viewer.js.
export function detailsOf(found, record, on) {
  const name = titleOf(record);
  const cover = coverOf(record);
  const seen = record.parts.some((part) => part.modality === "image" || part.modality === "video");
  return [
    el(
      "div",
      { class: "row" },
      button("similar", "Find similar", () => on.similar(record, cover)),
      button("more", "More like this", () => on.more(record)),
      button("less", "Not this", () => on.less(record)),
    ),
    said(record, name, cover),
    evidence(found, on.kind),
    facts(record, on),
    el(
      "div",
      { class: "row spread actions" },
      button("imagine", seen ? "Imagine it anew" : "Imagine its picture", () =>
        openImagined([{ name: "this memory", weight: 1, trust: null, record: record.id }], name),
      ),
      forgetting(record, () => on.forgotten(record)),
    ),
  ];
}

// The words of a record, where neither its title nor its stage says them.
function said(record, name, cover) {
  const words = new Set(record.parts.filter((part) => part.modality === "text" && part.text).map((part) => part.text.trim()));
  words.delete(name);
  if (!words.size || cover?.modality === "text") return null;
  return el("section", {}, el("h3", {}, "Its words"), [...words].map((text) => el("blockquote", { class: "quote", dir: "auto" }, text)));
}

function evidence(found, kind) {
  if (found.probability === undefined) return null;
  return el(
    "section",
    { class: "evidence" },
    el("h3", {}, "Why it came back"),
    el("p", {}, `With a probability of ${percent(found.probability)}, number ${found.rank} of the answer.`),
    shares(found.shares ?? {}, kind),
  );
}

function facts(record, on) {
  const metadata = record.metadata ?? {};
  const rows = [];
  // what has a row in words is not said again as it stands
  const told = new Set(["path", "title"]);
  const date = dateOf({ metadata });
  if (date) {
    const key = metadata.taken === date ? "taken" : "modified";
    const month = date.slice(0, 7);
    rows.push([key, el("button", { type: "button", class: "tag", title: `All of ${monthName(month)}`, onclick: () => on.month(month) }, dayName(date))]);
    told.add(key);
  }
  const { latitude, longitude } = metadata;
  if (Number.isFinite(latitude) && Number.isFinite(longitude)) {
    rows.push(["place", placeName(latitude, longitude)]);
    told.add("latitude").add("longitude");
  }
  for (const key of keysOf(metadata)) {
    const chips = offered(metadata, [key]).map((one) => chip(one, on.narrow));
    if (!chips.length) continue;
    rows.push([key, el("span", { class: "tags" }, chips)]);
    told.add(key);
  }
  for (const [key, value] of Object.entries(metadata)) {
    if (!told.has(key) && value !== null && value !== "" && !(Array.isArray(value) && !value.length)) rows.push([key, shown(value)]);
  }
  if (metadata.path) rows.push(["path", el("code", {}, String(metadata.path))]);
  rows.push(["id", el("code", {}, record.id)]);
  return el(
    "section",
    {},
    el("h3", {}, "What is written on it"),
    el("dl", { class: "facts" }, rows.map(([key, value]) => el("div", {}, el("dt", { dir: "auto" }, key), el("dd", { dir: "auto" }, value)))),
  );
}

function shown(value) {
  if (Array.isArray(value) && value.every((one) => typeof one !== "object")) return value.join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

// Asks for confirmation before it deletes.
function forgetting(record, done) {
  const place = el("div", { class: "row" });
  const ask = button("forget", "Forget it", () => {
    const sure = button("forget", "Yes, forget it", async () => {
      sure.disabled = true;
      try {
        await api.forget(record.id);
        done();
      } catch (error) {
        place.replaceChildren(absent(error.message));
      }
    }, { kind: "danger" });
    place.replaceChildren(sure, el("button", { type: "button", class: "quiet", onclick: () => {
      place.replaceChildren(ask);
      ask.focus();
    } }, "Keep it"));
    sure.focus();
  });
  place.append(ask);
  return place;
}
