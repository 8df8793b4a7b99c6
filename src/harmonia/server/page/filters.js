// The filters: by modality and by metadata. Each is a chip that can be removed.

import { SIZES, SORTS } from "./address.js";
import { SHARED, chip, condition, inWords, joined, offered } from "./conditions.js";
import { $, button, el, icon } from "./dom.js";

const KINDS = [["text", "Words"], ["image", "Picture"], ["audio", "Sound"], ["video", "Video"]];
const COMPARISONS = [
  ["eq", "is"],
  ["ne", "is not"],
  ["gt", "is over"],
  ["gte", "is at least"],
  ["lt", "is under"],
  ["lte", "is at most"],
  ["contains", "contains"],
  ["has", "has, of a list"],
];
const ORDERS = { best: "the best first", newest: "the newest first", oldest: "the oldest first", added: "the last remembered first" };
// Most chips of one key in the panel.
const CHIPS = 12;

export class Filters {
  constructor(form, { count, chips, changed }) {
    this.count = count;
    this.chips = chips;
    this.changed = changed;
    this.where = [];
    this.seen = new Map();
    this.keys = el("datalist", { id: "metadata-keys" });
    this.rows = el("div", { class: "conditions" });
    this.kinds = KINDS.map(([kind, label]) => el("input", { type: "checkbox", value: kind, name: label, onchange: () => this.#tell() }));
    const pick = (name, options) => el("select", { name, onchange: () => this.#tell() }, options);
    this.size = pick("k", SIZES.map((k) => el("option", { value: k }, String(k))));
    this.sort = pick("sort", SORTS.map((sort) => el("option", { value: sort }, ORDERS[sort])));
    this.offers = el("div", { class: "offers" });
    form.append(
      el(
        "fieldset",
        {},
        el("legend", {}, "It has"),
        this.kinds.map((box, at) => el("label", { class: "pick" }, box, icon(KINDS[at][0]), KINDS[at][1])),
      ),
      this.offers,
      el("fieldset", {}, el("legend", {}, "What is written on it"), this.rows, this.keys, button("add", "Add a condition", () => this.#addRow())),
      el("div", { class: "row sizes" }, el("label", { class: "size" }, "Order", this.sort), el("label", { class: "size" }, "How many at a time", this.size)),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      [...this.rows.children].forEach((row) => this.#take(row));
    });
    this.set({ has: [], where: [], k: 24, sort: "best" });
  }

  get wanted() {
    return this.kinds.filter((box) => box.checked).map((box) => box.value);
  }

  // What an address says of the filters (see address.js).
  get state() {
    return { has: this.wanted, where: [...this.where], k: Number(this.size.value), sort: this.sort.value };
  }

  set({ has, where, k, sort }) {
    for (const box of this.kinds) box.checked = has.includes(box.value);
    this.where = [...where];
    this.size.value = String(k);
    this.sort.value = sort;
    this.#draw();
  }

  // The one condition that the server gets; undefined for none.
  get condition() {
    return joined(this.where);
  }

  // Adds a condition (`where`) or a modality (`has`), as a chip does.
  narrow({ where, has }) {
    if (where && !this.where.includes(where)) this.where.push(where);
    for (const box of this.kinds) if (box.value === has) box.checked = true;
    this.#tell();
  }

  // Modality is not metadata: the page selects by it.
  keeps = (record) => this.wanted.every((kind) => record.parts.some((part) => part.modality === kind));

  // Collects the metadata of records: keys as suggestions, shared values as chips.
  learn(records) {
    const known = new Set([...this.keys.children].map((option) => option.value));
    for (const record of records) {
      for (const name of Object.keys(record.metadata ?? {})) {
        if (!known.has(name)) this.keys.append(el("option", { value: name }));
        known.add(name);
      }
      if (!this.seen.has(record.id)) this.seen.set(record.id, offered(record.metadata));
    }
    this.#offer();
  }

  #offer() {
    const counts = new Map();
    for (const chips of this.seen.values()) {
      for (const one of chips) counts.set(one[2], { one, count: (counts.get(one[2])?.count ?? 0) + 1 });
    }
    const all = [...counts.values()].filter(({ one }) => !this.where.includes(one[2]));
    this.offers.replaceChildren(
      ...SHARED.map((key) => {
        const here = all.filter(({ one }) => one[0] === key).sort((a, b) => b.count - a.count).slice(0, CHIPS);
        if (!here.length) return null;
        const chips = here.map(({ one, count }) => chip(one, (how) => this.narrow(how), el("span", { class: "tag-count" }, ` ${count}`)));
        return el("fieldset", { class: "offer" }, el("legend", {}, key), chips);
      }).filter(Boolean),
    );
  }

  #addRow() {
    const row = el(
      "div",
      { class: "condition", role: "group", "aria-label": "Condition" },
      el("input", { name: "key", "aria-label": "Key", placeholder: "key, such as year", maxLength: 200, list: "metadata-keys" }),
      el("select", { "aria-label": "Comparison" }, COMPARISONS.map(([value, label]) => el("option", { value }, label))),
      el("input", { name: "value", "aria-label": "Value", placeholder: "value", maxLength: 1000 }),
      el("button", { type: "submit", class: "quiet" }, icon("check"), el("span", { class: "unseen" }, "Set the condition")),
      button("close", "Remove the condition", () => row.remove(), { shown: false }),
    );
    this.rows.append(row);
    $("input", row).focus();
  }

  // A row that is complete becomes a chip.
  #take(row) {
    const [key, text] = ["key", "value"].map((name) => $(`[name=${name}]`, row).value.trim());
    if (!key || !text) return;
    row.remove();
    this.narrow({ where: condition(key, typed(text), $("select", row).value) });
  }

  #drop(change) {
    change();
    this.#tell();
    ($("button", this.chips) ?? $("#filters summary")).focus();
  }

  #draw() {
    const set = [
      ...this.kinds.filter((box) => box.checked).map((box) => [`has: ${box.name.toLowerCase()}`, () => (box.checked = false)]),
      ...this.where.map((one) => [inWords(one), () => (this.where = this.where.filter((other) => other !== one))]),
    ];
    this.count.textContent = set.length ? `${set.length} set` : "";
    this.chips.replaceChildren(
      ...set.map(([label, change]) =>
        el("li", { class: "set" }, el("span", { dir: "auto" }, label), button("close", `Remove the filter ${label}`, () => this.#drop(change), { shown: false })),
      ),
    );
    this.#offer();
  }

  #tell() {
    this.#draw();
    this.changed();
  }
}

// 2024 is a number, true a boolean, "2024" in quotes a text.
function typed(text) {
  if (text === "true" || text === "false") return text === "true";
  const quoted = /^"(.*)"$/.exec(text);
  if (quoted) return quoted[1];
  return text !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
}
