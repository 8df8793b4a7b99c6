// Generated pictures, conditioned on what the cues recall. They are always labelled as generated.

import * as api from "./api.js";
import { button, dialog, el, icon } from "./dom.js";
import { absent, picture, titleOf } from "./media.js";

const PICTURES = 2;

// `cues` as the API takes them; `name` is the title of the dialog.
export function openImagined(cues, name, options = {}) {
  const stop = new AbortController();
  const { body } = dialog(`Imagined: ${name}`, { wide: true, onclose: () => stop.abort() });
  // what the memory settles on, or the cues as they are where it has nothing to say; a record is in the memory
  const from_memory = cues.every((cue) => cue.record) ? true : null;
  let seed = 0;
  const draw = async () => {
    body.replaceChildren(el("p", { class: "status working", role: "status" }, "Imagining… this can take a while."));
    try {
      const answer = await api.imagine(cues, { ...options, to: "image", n: PICTURES, seed, from_memory }, stop.signal);
      if (answer.abstained) {
        body.replaceChildren(absent("Nothing that is remembered matches, so there is nothing to imagine from."));
        return;
      }
      const next = button("imagine", "Imagine others", () => {
        seed += 1;
        draw();
      });
      body.replaceChildren(notice(), pictures(answer, name), await sources(answer, stop.signal), el("div", { class: "row end" }, next));
      next.focus();
    } catch (error) {
      if (error.name !== "AbortError") body.replaceChildren(absent(error.message));
    }
  };
  draw();
}

const notice = () =>
  el(
    "p",
    { class: "generated-note" },
    icon("imagine"),
    el("span", {}, "Generated, not remembered: nobody took these pictures, and they prove nothing."),
  );

function pictures(answer, name) {
  return el(
    "div",
    { class: "imagined" },
    answer.data.map((one, at) =>
      el(
        "figure",
        { class: "generated" },
        el("img", { src: `data:image/png;base64,${one.b64_json}`, alt: `Generated picture ${at + 1} of ${name}` }),
        el("figcaption", {}, icon("imagine"), "Generated"),
      ),
    ),
  );
}

// The records that a picture was generated from, for comparison.
async function sources(answer, signal) {
  const ids = [...new Set((answer.evidence ?? []).map((one) => one.id ?? one.record ?? one))].slice(0, 6);
  const found = await Promise.allSettled(ids.map((id) => api.record(id, signal)));
  const records = found.filter((one) => one.status === "fulfilled").map((one) => one.value);
  if (!records.length) return el("p", { class: "status" }, "No memory stands behind it.");
  return el(
    "section",
    {},
    el("h3", {}, "Drawn from these memories"),
    el(
      "ul",
      { class: "sources" },
      records.map((record) => {
        const seen = record.parts.find((part) => part.preview);
        return el("li", {}, seen ? picture(seen, "", { size: 256 }) : icon("text"), el("span", { dir: "auto" }, titleOf(record)));
      }),
    ),
  );
}
