// The filters: by modality and by metadata.

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
];
// Number of results requested when the page filters by modality.
const MANY = 200;

export class Filters {
  constructor(form, count, changed) {
    this.form = form;
    this.count = count;
    this.changed = changed;
    this.keys = el("datalist", { id: "metadata-keys" });
    this.rows = el("div", { class: "conditions" });
    this.kinds = KINDS.map(([kind, label]) => el("input", { type: "checkbox", value: kind, name: label }));
    this.size = el("select", { name: "k" }, [12, 24, 48, 96].map((k) => el("option", { value: k }, String(k))));
    form.append(
      el(
        "fieldset",
        {},
        el("legend", {}, "It has"),
        this.kinds.map((box, at) => el("label", { class: "pick" }, box, icon(KINDS[at][0]), KINDS[at][1])),
      ),
      el(
        "fieldset",
        {},
        el("legend", {}, "What is written on it"),
        this.rows,
        this.keys,
        button("add", "Add a condition", () => this.#addRow()),
      ),
      el("label", { class: "size" }, "How many to show", this.size),
    );
    form.addEventListener("change", () => this.#tell());
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#tell();
    });
  }

  get wanted() {
    return this.kinds.filter((box) => box.checked).map((box) => box.value);
  }

  // The filter fields of a recall. Modality is not metadata: more results are requested and `keep` selects.
  asked() {
    const conditions = this.#conditions();
    const filters = conditions.length > 1 ? { type: "and", filters: conditions } : conditions[0];
    const k = this.wanted.length ? MANY : Number(this.size.value);
    return { k, ...(filters ? { filters } : {}) };
  }

  keep(records) {
    const wanted = this.wanted;
    if (!wanted.length) return records;
    const has = (record) => wanted.every((kind) => record.parts.some((part) => part.modality === kind));
    return records.filter(has).slice(0, Number(this.size.value));
  }

  // Collects the metadata keys of records, as suggestions.
  learn(records) {
    const known = new Set([...this.keys.children].map((option) => option.value));
    for (const name of records.flatMap((record) => Object.keys(record.metadata ?? {}))) {
      if (!known.has(name)) this.keys.append(el("option", { value: name }));
      known.add(name);
    }
  }

  more() {
    const next = [...this.size.options].find((option) => Number(option.value) > Number(this.size.value));
    if (!next) return false;
    this.size.value = next.value;
    this.#tell();
    return true;
  }

  get canShowMore() {
    return Number(this.size.value) < Number(this.size.options[this.size.options.length - 1].value);
  }

  #conditions() {
    return [...this.rows.children]
      .map((row) => ({ type: $("select", row).value, key: $("[name=key]", row).value.trim(), text: $("[name=value]", row).value.trim() }))
      .filter(({ key, text }) => key && text)
      .map(({ text, ...rest }) => ({ ...rest, value: typed(text) }));
  }

  #addRow() {
    const row = el(
      "div",
      { class: "condition", role: "group", "aria-label": "Condition" },
      el("input", { name: "key", "aria-label": "Key", placeholder: "key, such as year", maxLength: 200, list: "metadata-keys" }),
      el("select", { "aria-label": "Comparison" }, COMPARISONS.map(([value, label]) => el("option", { value }, label))),
      el("input", { name: "value", "aria-label": "Value", placeholder: "value", maxLength: 1000 }),
      button("close", "Remove the condition", () => {
        row.remove();
        this.#tell();
      }, { shown: false }),
    );
    this.rows.append(row);
    $("input", row).focus();
  }

  #tell() {
    const set = this.wanted.length + this.#conditions().length;
    this.count.textContent = set ? `${set} set` : "";
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
