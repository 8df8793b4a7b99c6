// The viewer: one record over the whole window, with the next and the previous one.

import * as api from "./api.js";
import { button, el, icon, say } from "./dom.js";
import { absent, coverOf, mediaOf, picture, player, preload, titleOf } from "./media.js";
import { detailsOf } from "./record.js";

// Pixels that a finger goes sideways for the next picture.
const SWIPE = 50;
// The most steps that wait for one another.
const STEPS = 4;

export class Viewer {
  // `around(record, direction)` resolves to the record after (1) or before (-1), null for none; `place(record)` says
  // where in the list it is; `stepped` and `closed` are called with the record. The rest of `on` is for record.js.
  constructor(on) {
    this.on = on;
    this.box = null;
    this.record = null;
    this.loading = new AbortController();
    this.turning = Promise.resolve();
    this.waiting = 0;
  }

  get open() {
    return this.box?.open ?? false;
  }

  show(record) {
    if (!this.open) this.#build();
    this.#turn(record);
  }

  // Opens a record by its id, as an address names it.
  async showId(id) {
    if (this.record?.id === id && this.open) return;
    if (!this.open) this.#build();
    this.#reset();
    const { signal } = this.loading;
    this.panel.replaceChildren(el("p", { class: "status working", role: "status" }, "Opening…"));
    try {
      const record = await api.record(id, signal);
      if (!signal.aborted) this.#turn(record);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.title.textContent = "It cannot be opened";
      this.stage.replaceChildren();
      this.panel.replaceChildren(absent(error.message));
    }
  }

  // Closes without a word to `closed`: the address is changed by another.
  hide() {
    const { box } = this;
    if (!box) return;
    this.#end();
    box.close();
    box.remove();
  }

  #end() {
    this.loading.abort();
    this.box = this.record = null;
  }

  #build() {
    // one that was closed a moment ago has not told it yet
    this.hide();
    const id = "viewer-title";
    this.title = el("h2", { id, dir: "auto" }, "Opening…");
    this.where = el("p", { class: "status" });
    // it can be scrolled by keys
    this.stage = el("div", { class: "stage-media", tabIndex: 0, role: "group", "aria-label": "Its media" });
    this.panel = el("div", { class: "dialog-body" });
    this.buttons = {
      [-1]: button("previous", "Previous", () => this.#step(-1), { shown: false, kind: "step back" }),
      [1]: button("next", "Next", () => this.#step(1), { shown: false, kind: "step on" }),
    };
    const stage = el("div", { class: "stage" }, this.buttons[-1], this.stage, this.buttons[1]);
    this.box = el(
      "dialog",
      { class: "viewer", "aria-labelledby": id },
      stage,
      el(
        "aside",
        { class: "panel" },
        el("header", { class: "dialog-head" }, el("div", {}, this.title, this.where), button("close", "Close", () => this.box.close(), { shown: false })),
        this.panel,
      ),
    );
    const { box } = this;
    box.addEventListener("keydown", (event) => this.#key(event));
    box.addEventListener("close", () => {
      box.remove();
      // it is another one's turn
      if (this.box !== box) return;
      const { record } = this;
      this.#end();
      this.on.closed(record);
    });
    watchSwipes(stage, (direction) => this.#step(direction));
    document.body.append(box);
    box.showModal();
    $close(box).focus();
  }

  #reset() {
    this.loading.abort();
    this.loading = new AbortController();
    this.beside = { [-1]: undefined, [1]: undefined };
  }

  async #turn(found) {
    this.#reset();
    const { signal } = this.loading;
    this.record = found;
    const name = titleOf(found);
    this.title.textContent = name;
    this.where.textContent = this.on.place(found);
    this.stage.replaceChildren(...staged(found, name, this.on));
    this.panel.replaceChildren(el("p", { class: "status working", role: "status" }, "Opening…"));
    this.panel.parentElement.scrollTop = 0;
    this.#look(-1, signal);
    this.#look(1, signal);
    try {
      const record = await api.record(found.id, signal);
      if (signal.aborted) return;
      if (mediaOf(record).length > mediaOf(found).length) this.stage.replaceChildren(...staged(record, name, this.on));
      this.panel.replaceChildren(...detailsOf(found, record, this.on).filter(Boolean));
    } catch (error) {
      if (error.name !== "AbortError") this.panel.replaceChildren(absent(error.message));
    }
  }

  // Finds the neighbour on one side, and loads its picture before it is asked for.
  async #look(direction, signal) {
    const knob = this.buttons[direction];
    let record = null;
    try {
      record = await this.on.around(this.record, direction, signal);
    } catch (error) {
      if (error.name === "AbortError") return null;
    }
    if (signal.aborted) return null;
    this.beside[direction] = record;
    this.where.textContent = this.on.place(this.record);
    knob.setAttribute("aria-disabled", String(!record));
    const part = record && coverOf(record);
    if (part) preload(part, 1024);
    return record;
  }

  // One step after another: keys that come while a record is looked for count too, up to a few.
  #step(direction) {
    if (this.waiting >= STEPS) return;
    this.waiting += 1;
    this.turning = this.turning.then(() => this.#go(direction)).finally(() => (this.waiting -= 1));
  }

  async #go(direction) {
    if (!this.record) return;
    const { signal } = this.loading;
    const record = this.beside[direction] === undefined ? await this.#look(direction, signal) : this.beside[direction];
    if (!record || signal.aborted) return;
    this.#turn(record);
    this.on.stepped(record);
    say(titleOf(record));
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    if (event.target.closest("input, textarea, select, audio, video")) return;
    const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!direction) return;
    event.preventDefault();
    this.#step(getComputedStyle(this.box).direction === "rtl" ? -direction : direction);
  }
}

const $close = (box) => box.querySelector(".dialog-head button");

// The media of a record, each picture with what finds similar ones.
function staged(record, name, on) {
  const media = mediaOf(record);
  const shown = media.some((part) => part.modality !== "text") ? media.filter((part) => part.modality !== "text") : media;
  if (!shown.length) return [icon("text")];
  return shown.map((part) => {
    if (part.modality === "text") return el("blockquote", { class: "quote", dir: "auto" }, part.text ?? "");
    if (part.modality !== "image") {
      const wave = part.modality === "audio" && part.preview ? picture(part, `The waveform of ${name}`, { eager: true }) : null;
      return el("figure", { class: part.modality }, wave, player(part, name));
    }
    const similar = shown.length > 1 ? button("similar", "Find similar to this picture", () => on.similar(record, part), { shown: false, kind: "similar" }) : null;
    return el("figure", { class: "image" }, picture(part, name, { size: 1024, eager: true }), similar);
  });
}

// Calls `step` when a finger goes sideways, but not when it scrolls or moves a control.
function watchSwipes(node, step) {
  let start = null;
  node.addEventListener("pointerdown", (event) => {
    const free = event.pointerType !== "mouse" && event.isPrimary && !event.target.closest("audio, video, button");
    start = free ? { x: event.clientX, y: event.clientY } : null;
  });
  node.addEventListener("pointercancel", () => (start = null));
  node.addEventListener("pointerup", (event) => {
    if (!start || !event.isPrimary) return;
    const [across, down] = [event.clientX - start.x, event.clientY - start.y];
    start = null;
    if (Math.abs(across) >= SWIPE && Math.abs(across) > 2 * Math.abs(down)) step(across < 0 ? 1 : -1);
  });
}
