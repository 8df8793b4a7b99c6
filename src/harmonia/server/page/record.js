// One record in full: its media, texts, metadata, and generated pictures.

import * as api from "./api.js";
import { button, dialog, el, percent } from "./dom.js";
import { absent, mediaOf, picture, player, titleOf } from "./media.js";
import { openImagined } from "./imagined.js";
import { shares } from "./results.js";

// `found` is the record of a result; `more`, `less` and `forgotten` are callbacks.
export async function openRecord(found, { more, less, forgotten, kind }) {
  const name = titleOf(found);
  const stop = new AbortController();
  const { box, body } = dialog(name, { wide: true, onclose: () => stop.abort() });
  body.append(el("p", { class: "status" }, "Opening…"));
  let record;
  try {
    record = await api.record(found.id, stop.signal);
  } catch (error) {
    if (error.name !== "AbortError") body.replaceChildren(absent(error.message));
    return;
  }
  const then = (what) => () => {
    box.close();
    what(found, name);
  };
  const image = record.parts.some((part) => part.modality === "image" || part.modality === "video");
  body.replaceChildren(
    el("div", { class: "media" }, mediaOf(record).map((part) => part.text?.trim() === name ? null : whole(part, name))),
    evidence(found, kind),
    facts(record),
    el(
      "div",
      { class: "row spread actions" },
      el(
        "div",
        { class: "row" },
        button("more", "More like this", then(more)),
        button("less", "Not this", then(less)),
        button("imagine", image ? "Imagine it anew" : "Imagine its picture", () =>
          openImagined([{ name: "this memory", weight: 1, trust: null, record: record.id }], name),
        ),
      ),
      forgetting(record, () => {
        box.close();
        forgotten(record);
      }),
    ),
  );
}

function whole(part, name) {
  if (part.modality === "text") return el("blockquote", { class: "quote", dir: "auto" }, part.text ?? "");
  if (part.modality === "image") return picture(part, name, { size: 1024, eager: true });
  return el("div", {}, part.modality === "audio" && part.preview ? picture(part, `The waveform of ${name}`, { eager: true }) : null, player(part, name));
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

function facts(record) {
  const rows = Object.entries(record.metadata ?? {}).filter(([, value]) => value !== null && value !== "");
  return el(
    "section",
    {},
    el("h3", {}, "What is written on it"),
    el(
      "dl",
      { class: "facts" },
      rows.map(([key, value]) => el("div", {}, el("dt", { dir: "auto" }, key), el("dd", { dir: "auto" }, shown(value)))),
      el("div", {}, el("dt", {}, "id"), el("dd", {}, el("code", {}, record.id))),
    ),
  );
}

const shown = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));

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

