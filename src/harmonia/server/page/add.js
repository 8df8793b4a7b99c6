// The dialog that uploads files and words, two at a time, with progress and the reason of each failure.

import { remember } from "./api.js";
import { button, dialog, el, icon, plural, say } from "./dom.js";

const AT_ONCE = 2;

export class Adder {
  // `added` is called when the queue is empty and something new was remembered; `open` shows a record.
  constructor({ badge, added, open }) {
    this.badge = badge;
    this.added = added;
    this.open = open;
    this.waiting = [];
    this.running = 0;
    this.fresh = 0;
    this.list = el("ul", { class: "uploads", "aria-label": "What is being remembered" });
    this.summary = el("p", { class: "status", role: "status", "aria-live": "polite" });
    this.box = null;
  }

  show() {
    if (this.box) return;
    const { box, body } = dialog("Remember something", { onclose: () => (this.box = null) });
    this.box = box;
    const words = el("textarea", { rows: 2, maxLength: 20000, id: "add-words", dir: "auto", placeholder: "a caption for the files, or a note of its own" });
    const together = el("input", { type: "checkbox" });
    const input = el("input", {
      type: "file", multiple: true, class: "unseen", tabIndex: -1, "aria-label": "Files to remember",
      onchange: () => {
        take([...input.files]);
        input.value = "";
      },
    });
    const take = (files) => {
      this.add(files, { text: words.value.trim(), together: together.checked });
      words.value = "";
    };
    const target = el(
      "div",
      { class: "dropzone" },
      icon("add"),
      el("p", {}, "Drop photos, sounds, videos and notes here"),
      button("add", "Choose files", () => input.click(), { kind: "go" }),
      input,
    );
    target.addEventListener("dragover", (event) => event.preventDefault());
    target.addEventListener("drop", (event) => {
      event.preventDefault();
      event.stopPropagation();
      take([...event.dataTransfer.files]);
    });
    const note = button("text", "Remember the words", () => {
      if (words.value.trim()) this.#queue({ name: words.value.trim(), text: words.value.trim(), files: [] });
      words.value = "";
      words.focus();
    });
    body.append(
      target,
      el("label", { for: "add-words" }, "Words to go with it"),
      words,
      el("div", { class: "row spread" }, el("label", { class: "pick" }, together, "Keep the files together"), note),
      this.summary,
      this.list,
    );
  }

  // Each file becomes a record of its own, unless `together`.
  add(files, { text = "", together = false } = {}) {
    if (!files.length) return;
    this.show();
    if (together) this.#queue({ name: files.map((file) => file.name).join(", "), files, text });
    else for (const file of files) this.#queue({ name: file.name, files: [file], text });
  }

  #queue(job) {
    job.bar = el("progress", { max: 1, value: 0, "aria-label": `Progress of ${job.name}` });
    job.state = el("span", { class: "upload-state" }, "waits");
    job.mark = el("span", { class: "upload-mark" }, icon("add"));
    job.row = el(
      "li",
      { class: "upload" },
      job.mark,
      el("span", { class: "upload-name", dir: "auto", title: job.name }, job.name),
      job.state,
      job.bar,
    );
    this.list.prepend(job.row);
    this.waiting.push(job);
    this.#next();
  }

  #next() {
    while (this.running < AT_ONCE && this.waiting.length) {
      this.running += 1;
      this.#send(this.waiting.shift()).finally(() => {
        this.running -= 1;
        this.#next();
      });
    }
    const left = this.running + this.waiting.length;
    this.badge.textContent = left ? String(left) : "";
    this.summary.textContent = left ? `${plural(left, "thing")} to go` : this.list.children.length ? "Everything is done." : "";
    if (!left && this.fresh) {
      this.fresh = 0;
      this.added();
    }
  }

  async #send(job) {
    job.state.textContent = "sending";
    try {
      const record = await remember(job, (sent) => {
        job.bar.value = sent;
        // the server now decodes and encodes, and reports no progress of it
        if (sent === 1) job.bar.removeAttribute("value");
        job.state.textContent = sent < 1 ? `sending, ${Math.round(100 * sent)} %` : "looking and listening";
      });
      this.fresh += 1;
      job.row.classList.add("done");
      job.mark.replaceChildren(icon("check"));
      job.state.textContent = "remembered";
      job.bar.replaceWith(button("recall", "Show", () => this.#show(record), { "aria-label": `Show ${job.name}` }));
    } catch (error) {
      job.row.classList.add("failed");
      job.mark.replaceChildren(icon("alert"));
      job.state.textContent = "not remembered";
      job.bar.replaceWith(el("p", { class: "reason", dir: "auto" }, error.message));
      say(`${job.name} was not remembered: ${error.message}`);
    }
  }

  #show(record) {
    this.box?.close();
    this.open(record);
  }
}
