// The selection of several records, and the bar of what can be done with them.

import * as api from "./api.js";
import { button, el, plural, say } from "./dom.js";

// The most cues of one recall.
const CUES = 16;

export class Selection {
  // `shown` returns the records of the list in order; `changed`, `similar` and `forgotten` are callbacks.
  constructor(bar, { shown, changed, similar, forgotten }) {
    this.bar = bar;
    this.on = { shown, changed, similar, forgotten };
    this.chosen = new Map();
    this.anchor = null;
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.chosen.size || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      this.clear();
    });
  }

  has = (id) => this.chosen.has(id);

  // Selects or drops a record; with `range` all from the last one that was chosen.
  set(record, on, range = false) {
    const all = this.on.shown();
    const [from, to] = [all.findIndex((one) => one.id === this.anchor), all.findIndex((one) => one.id === record.id)];
    const several = range && from >= 0 && to >= 0 ? all.slice(Math.min(from, to), Math.max(from, to) + 1) : [record];
    for (const one of several) {
      if (on) this.chosen.set(one.id, one);
      else this.chosen.delete(one.id);
    }
    this.anchor = record.id;
    this.#tell();
  }

  all() {
    for (const record of this.on.shown()) this.chosen.set(record.id, record);
    this.#tell();
  }

  clear() {
    const inside = this.bar.contains(document.activeElement);
    this.chosen.clear();
    this.anchor = null;
    this.#tell();
    if (inside) document.querySelector("#results").focus();
  }

  drop(id) {
    if (this.chosen.delete(id)) this.#tell();
  }

  #tell() {
    this.#draw();
    this.on.changed();
  }

  #draw() {
    const count = this.chosen.size;
    this.bar.hidden = !count;
    document.body.classList.toggle("selecting", count > 0);
    if (!count) return this.bar.replaceChildren();
    const similar = button("similar", "Find similar", () => this.on.similar([...this.chosen.values()]));
    similar.disabled = count > CUES;
    if (similar.disabled) similar.title = `At most ${CUES} can be cues at once`;
    this.bar.replaceChildren(
      el("p", { class: "chosen", role: "status" }, `${count.toLocaleString("en")} selected`),
      el(
        "div",
        { class: "row" },
        button("check", "All shown", () => this.all()),
        similar,
        button("text", "List of paths", () => this.#list()),
        button("forget", "Forget", () => this.#ask()),
        button("close", "Clear the selection", () => this.clear(), { shown: false }),
      ),
    );
  }

  // Saves the paths of the selected records, one a line.
  #list() {
    const records = [...this.chosen.values()];
    const known = records.map((record) => record.metadata?.path).filter((path) => typeof path === "string" && path);
    const left = records.length - known.length;
    // a manifest is the path of each of its rows
    const paths = [...new Set(known)];
    if (!paths.length) return this.#note("None of them has a path here: they were uploaded, or the key may not see paths.");
    const url = URL.createObjectURL(new Blob([`${paths.join("\n")}\n`], { type: "text/plain" }));
    el("a", { href: url, download: "paths.txt" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
    this.#note(`${plural(paths.length, "path")} saved${left ? `; ${plural(left, "memory has", "memories have")} none here` : ""}.`);
  }

  #note(text) {
    this.bar.querySelector(".chosen").textContent = text;
    say(text);
  }

  // Asks for confirmation before it deletes.
  #ask() {
    const several = plural(this.chosen.size, "memory", "memories");
    const sure = button("forget", `Yes, forget ${several}`, () => this.#forget(), { kind: "danger" });
    this.bar.replaceChildren(
      el("p", { class: "chosen" }, `Forget ${several}? This cannot be undone.`),
      el("div", { class: "row" }, sure, el("button", { type: "button", class: "quiet", onclick: () => this.#draw() }, "Keep them")),
    );
    sure.focus();
  }

  async #forget() {
    const records = [...this.chosen.values()];
    const line = el("p", { class: "chosen working", role: "status" });
    this.bar.replaceChildren(line);
    const failed = [];
    for (const [at, record] of records.entries()) {
      line.textContent = `Forgetting ${at + 1} of ${records.length}`;
      try {
        await api.forget(record.id);
      } catch (error) {
        // what is gone already is forgotten
        if (error.status !== 404) {
          failed.push(error.message);
          continue;
        }
      }
      this.chosen.delete(record.id);
      this.on.forgotten(record, records.length - at - 1);
    }
    this.#tell();
    if (failed.length) this.#note(`${plural(failed.length, "memory was", "memories were")} not forgotten: ${failed[0]}`);
    else {
      say(`${plural(records.length, "memory", "memories")} forgotten.`);
      document.querySelector("#results").focus();
    }
  }
}
