// Loads the next page when the end of the list comes near.

import { button, el, plural } from "./dom.js";
import { failed } from "./messages.js";

const NEAR = "900px 0px";

export class Endless {
  // `next(signal)` loads a page and adds it to the `list`; `source()` is that of sources.js.
  constructor(end, start, { list, next, source }) {
    this.end = end;
    this.start = start;
    this.on = { list, next, source };
    this.loading = null;
    this.near = new IntersectionObserver((entries) => entries.at(-1).isIntersecting && this.load(), { rootMargin: NEAR });
  }

  // Begins to watch the end of a new list.
  watch(signal) {
    this.signal = signal;
    this.loading = null;
    this.#rest();
    this.#offer();
  }

  stop() {
    this.near.disconnect();
    this.end.replaceChildren();
    this.start.replaceChildren();
  }

  // Loads one more page, once at a time; false if there is none.
  async load() {
    if (!this.on.source()?.more || this.signal?.aborted) return false;
    this.loading ??= this.#load(this.signal);
    return this.loading;
  }

  async #load(signal) {
    this.near.disconnect();
    this.end.replaceChildren(el("p", { class: "status working", role: "status" }, "Loading more…"));
    try {
      await this.on.next(signal);
    } catch (error) {
      this.loading = null;
      if (error.name !== "AbortError") this.end.replaceChildren(failed(error, () => this.load()));
      return false;
    }
    if (signal.aborted) return false;
    this.loading = null;
    this.#rest();
    return true;
  }

  #rest() {
    const { more } = this.on.source();
    const count = this.on.list.cells.size;
    this.end.replaceChildren();
    if (more) {
      // for those who do not scroll
      this.end.append(button("add", "Show more", () => this.load()));
      // a new observation reports an end that is still near
      this.near.observe(this.end);
    } else if (count > 12) this.end.append(el("p", { class: "status" }, `That is all: ${plural(count, "memory", "memories")}.`));
  }
  // A list that begins at a month can go back from there.
  #offer() {
    const source = this.on.source();
    if (!source.hasBefore) return this.start.replaceChildren();
    const { list } = this.on;
    const { signal } = this;
    const earlier = button("previous", source.order === "asc" ? "Show older ones" : "Show newer ones", async () => {
      earlier.disabled = true;
      try {
        list.addBefore(await source.previous(signal));
        this.#offer();
      } catch (error) {
        if (error.name !== "AbortError") this.start.replaceChildren(failed(error, () => this.#offer()));
      }
    });
    this.start.replaceChildren(earlier);
  }
}
