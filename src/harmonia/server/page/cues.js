// The cues of the cue box, each as a chip with its trust and weight.

import { record as read } from "./api.js";
import { CLAMPED } from "./address.js";
import { $, button, el, icon, plural, shorten } from "./dom.js";
import { picture, titleOf } from "./media.js";

const WORDS = 60;
const KINDS = { text: "words", image: "picture", audio: "sound", video: "video", record: "memory" };
const WEIGHTS = [
  ["1", "counts for"],
  ["2", "counts double"],
  ["0.5", "counts half"],
  ["-1", "counts against"],
];
// The right end of the slider clamps a cue; below it kappa runs from 0.1 to 10, and retrieval may denoise the cue.
const kappa = (at) => (at >= CLAMPED ? null : 10 ** ((at - 5) / 5));
const TRUST = ["a hint", "loosely", "loosely", "partly", "partly", "half", "mostly", "mostly", "firmly", "firmly", "exactly"];

export class Cues {
  // `changed` is called when the cues change, with whether it was a dial; `edit` with the words of a chip to change them.
  constructor(list, { changed, edit }) {
    this.list = list;
    this.changed = changed;
    this.edit = edit;
    this.held = [];
  }

  get empty() {
    return this.held.length === 0;
  }

  addWords(text) {
    if (text.trim()) this.#add({ modality: "text", label: shorten(text, WORDS), text: text.trim() });
  }

  // A picture, sound or video; false for a file of another kind.
  addFile(file, label = file.name) {
    const modality = kindOf(file);
    if (!modality) return false;
    const thumb = modality === "image" ? URL.createObjectURL(file) : null;
    this.#add({ modality, label: shorten(label || KINDS[modality], WORDS), file, thumb });
    return true;
  }

  // "More like this" and "not this".
  addRecord(record, against = false) {
    this.held = this.held.filter((cue) => cue.id !== record.id);
    this.#add({ ...likeCue(record), weight: against ? -1 : 1 });
  }

  // "Find similar": these records, or one part of one, and nothing else.
  setRecords(records, part) {
    this.restore(records.map((record) => ({ ...likeCue(record), part })));
    this.changed();
  }

  clear() {
    this.restore([]);
  }

  // Sets the cues to those of an address or of the history (see address.js).
  restore(cues) {
    this.held.forEach(forgetThumb);
    this.held = [];
    for (const cue of cues) {
      const label = cue.label ?? (cue.modality === "text" ? shorten(cue.text, WORDS) : "a memory");
      const thumb = cue.file && cue.modality === "image" ? URL.createObjectURL(cue.file) : null;
      this.#hold({ ...cue, label, thumb });
    }
    this.#draw();
  }

  // Reads the titles of records that an address names by id only.
  async findNames(signal) {
    const unnamed = this.held.filter((cue) => cue.modality === "record" && !cue.record);
    if (!unnamed.length) return;
    const found = await Promise.allSettled(unnamed.map((cue) => read(cue.id, signal)));
    signal.throwIfAborted();
    found.forEach((one, at) => {
      if (one.status === "fulfilled") Object.assign(unnamed[at], likeCue(one.value));
    });
    this.restore(this.held);
  }

  // The cues as the API takes them (see api.js). Names are unique, since shares are keyed by name.
  asked() {
    return this.held.map(({ name, modality, text, file, id, part, weight, trust }) => ({
      name,
      weight,
      trust: kappa(trust),
      ...(modality === "text" ? { text } : modality === "record" ? { record: id, ...(part === undefined ? {} : { part }) } : { modality, file }),
    }));
  }

  // The modality of a cue by its name, for the icon beside its share.
  modalityOf(name) {
    const film = name.endsWith(" sound") && this.held.some((cue) => `${cue.name} sound` === name);
    return film ? "audio" : (this.held.find((cue) => cue.name === name)?.modality ?? "text");
  }

  #add(cue) {
    this.#hold(cue);
    this.#draw();
    this.changed();
  }

  #hold(cue) {
    const taken = new Set(this.held.map((one) => one.name));
    let name = cue.label;
    for (let number = 2; taken.has(name); number += 1) name = `${cue.label} (${number})`;
    this.held.push({ weight: 1, trust: CLAMPED, ...cue, name });
  }

  #remove(cue) {
    forgetThumb(cue);
    this.held = this.held.filter((one) => one !== cue);
    this.#draw();
    this.changed();
    ($(".chip button", this.list) ?? $("#words")).focus();
  }

  #draw() {
    this.list.replaceChildren(...this.held.map((cue) => this.#chip(cue)));
    this.list.setAttribute("aria-label", this.empty ? "What to recall by: nothing yet" : `What to recall by: ${plural(this.held.length, "cue")}`);
  }

  #chip(cue) {
    const word = el("output", { class: "trust-word" }, TRUST[cue.trust]);
    const slider = el("input", {
      type: "range",
      min: 0,
      max: CLAMPED,
      step: 1,
      value: cue.trust,
      "aria-label": `Trust in ${cue.name}`,
      "aria-valuetext": TRUST[cue.trust],
      oninput: () => {
        cue.trust = Number(slider.value);
        word.textContent = TRUST[cue.trust];
        slider.setAttribute("aria-valuetext", TRUST[cue.trust]);
        this.changed(true);
      },
    });
    const item = el("li", { class: cue.weight < 0 ? "chip against" : "chip" });
    const counts = el(
      "select",
      {
        "aria-label": `How ${cue.name} counts`,
        onchange: () => {
          cue.weight = Number(counts.value);
          item.classList.toggle("against", cue.weight < 0);
          this.changed(true);
        },
      },
      WEIGHTS.map(([value, label]) => el("option", { value, selected: Number(value) === cue.weight }, label)),
    );
    // on a phone the dials are shown on demand
    const dials = button("filter", `Dials of ${cue.name}`, () => {
      dials.setAttribute("aria-expanded", String(item.classList.toggle("open")));
    }, { shown: false, kind: "quiet dials", "aria-expanded": "false" });
    item.append(
      this.#face(cue),
      this.#title(cue),
      dials,
      button("close", `Remove ${cue.name}`, () => this.#remove(cue), { shown: false }),
      el("div", { class: "chip-dials" }, counts, el("label", { class: "trust" }, el("span", {}, "Trust"), slider, word)),
    );
    return item;
  }

  #face(cue) {
    if (cue.thumb) return el("img", { class: "chip-face", src: cue.thumb, alt: "" });
    const seen = cue.record?.parts?.[cue.part ?? 0]?.preview ? cue.record.parts[cue.part ?? 0] : cue.record?.parts?.find((part) => part.preview);
    if (seen) return el("span", { class: "chip-face" }, picture(seen, "", { size: 128, eager: true }));
    return el("span", { class: "chip-face" }, icon(cue.modality === "record" ? "more" : cue.modality));
  }

  #title(cue) {
    if (cue.modality !== "text") {
      return el("span", { class: "chip-name", title: cue.name, dir: "auto" }, cue.name, el("small", {}, KINDS[cue.modality]));
    }
    const change = () => {
      this.held = this.held.filter((one) => one !== cue);
      this.#draw();
      this.edit(cue.text);
    };
    return el("button", { type: "button", class: "chip-name", title: "Change the words", dir: "auto", onclick: change }, cue.name);
  }
}

const likeCue = (record) => ({ modality: "record", id: record.id, record, label: shorten(titleOf(record), WORDS - 10) });

const forgetThumb = (cue) => cue.thumb && URL.revokeObjectURL(cue.thumb);

const ENDINGS = {
  image: /\.(png|jpe?g|webp|gif|bmp|tiff?|heic|heif|avif)$/i,
  audio: /\.(wav|mp3|flac|ogg|oga|opus|m4a|aac)$/i,
  video: /\.(mp4|webm|mov|mkv|avi|m4v)$/i,
};

function kindOf(file) {
  const kind = file.type.split("/")[0];
  if (kind in ENDINGS) return kind;
  return Object.keys(ENDINGS).find((name) => ENDINGS[name].test(file.name ?? "")) ?? null;
}
