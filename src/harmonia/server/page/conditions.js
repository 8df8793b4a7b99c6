// Conditions on metadata in the server's filter language, and the chips that set them.

import { el } from "./dom.js";

// Words of the filter language: a column of that name stands in backquotes.
const WORDS = new Set(
  ("and or not in between like ilike is null true false coalesce lower upper trim length abs array_length array_has " +
    "array_has_any array_has_all contains starts_with ends_with date timestamp").split(" "),
);
// Metadata that many records share, in the order of their chips.
export const SHARED = ["year", "tag", "tags", "keywords", "people", "camera", "lens", "folder", "artist", "album", "genre", "rating"];

const column = (key) => (/^[a-z_][a-z0-9_]*$/.test(key) && !WORDS.has(key) ? key : `\`${key.replaceAll("`", "_")}\``);
const literal = (value) => (typeof value === "string" ? `'${value.replaceAll("'", "''")}'` : String(value));

const SIGNS = { eq: "=", gt: ">", gte: ">=", lt: "<", lte: "<=" };

// A condition as text: `type` is that of the comparison, `has` is for lists.
export function condition(key, value, type = "eq") {
  const name = column(key);
  if (type === "has") return `array_has(${name}, ${literal(String(value))})`;
  if (type === "contains") return `contains(${name}, ${literal(String(value))})`;
  if (type === "ne") return `${name} != ${literal(value)} OR ${name} IS NULL`;
  return `${name} ${SIGNS[type]} ${literal(value)}`;
}

// All of several conditions as one; undefined for none.
export const joined = (conditions) =>
  conditions.length > 1 ? conditions.map((one) => `(${one})`).join(" AND ") : conditions[0];

const NAME = "(`[^`]+`|[a-z_][a-z0-9_]*)";
const VALUE = "('(?:[^']|'')*'|-?[0-9.]+|true|false)";
const FORMS = [
  [new RegExp(`^${NAME} = ${VALUE}$`), "is"],
  [new RegExp(`^array_has\\(${NAME}, ${VALUE}\\)$`), "is"],
  [new RegExp(`^contains\\(${NAME}, ${VALUE}\\)$`), "contains"],
  [new RegExp(`^${NAME} != ${VALUE} OR \\1 IS NULL$`), "is not"],
];

// A condition in words, such as "camera: Pixel 7"; one of another form as it is.
export function inWords(text) {
  for (const [form, word] of FORMS) {
    const found = form.exec(text);
    if (!found) continue;
    const value = found[2].startsWith("'") ? found[2].slice(1, -1).replaceAll("''", "'") : found[2];
    return `${found[1].replaceAll("`", "")}${word === "is" ? ":" : ` ${word}`} ${value}`;
  }
  return text;
}

// The keys of a record's metadata that are filters: those above, and every list of texts.
export const keysOf = (metadata) => [
  ...SHARED,
  ...Object.keys(metadata ?? {}).filter((key) => !SHARED.includes(key) && Array.isArray(metadata[key]) && metadata[key].every((one) => typeof one === "string")),
];

// The conditions that a record's metadata offers: [key, value in words, condition].
export function offered(metadata, keys = SHARED) {
  return keys.flatMap((key) => {
    const value = metadata?.[key];
    if (Array.isArray(value)) return value.filter((one) => typeof one === "string" && one).map((one) => [key, one, condition(key, one, "has")]);
    if (typeof value === "string" ? value : typeof value === "number" && Number.isFinite(value)) return [[key, String(value), condition(key, value)]];
    return [];
  });
}

// A chip that adds a condition when it is pressed.
export const chip = ([key, shown, text], narrow, extra = null) =>
  el(
    "button",
    { type: "button", class: "tag", dir: "auto", title: `Only ${key}: ${shown}`, "aria-label": `Only ${key}: ${shown}`, onclick: () => narrow({ where: text }) },
    shown,
    extra,
  );
