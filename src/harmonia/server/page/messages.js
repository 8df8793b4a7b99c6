// What the page says above the list: the answer in a sentence, that nothing matches, a failure, a welcome.

import { dateOf, dayName } from "./dates.js";
import { button, el, icon, percent, plural } from "./dom.js";
import { absent, coverOf, titleOf } from "./media.js";

// Records of a month, on average, below which a list has headings of years.
const FEW = 6;
const KINDS = { text: "a note", image: "a picture", audio: "a sound", video: "a video" };
// From this probability on one memory is the answer; below this one a memory is not named.
const SURE = 0.5;
const LEAST = 0.05;

// The answer of a recall in a sentence. The titles open their records.
export function answer(records, open) {
  const [first] = records;
  if (!first) return [];
  if (first.probability >= SURE) {
    const date = dateOf(first);
    const kind = KINDS[coverOf(first)?.modality] ?? "a memory";
    return ["Most likely ", title(first, open), ` (${kind}${date ? ` of ${dayName(date.slice(0, 10))}` : ""}, ${percent(first.probability)}).`];
  }
  const several = records.slice(0, 3).filter((record) => record === first || record.probability >= LEAST);
  return ["Perhaps ", ...several.flatMap((record, at) => [at ? (at === several.length - 1 ? " or " : ", ") : "", title(record, open), ` (${percent(record.probability)})`]), "."];
}

const title = (record, open) =>
  el("button", { type: "button", class: "link", dir: "auto", onclick: () => open(record) }, `“${titleOf(record)}”`);

export const abstained = (certificate) =>
  el(
    "div",
    { class: "abstained" },
    icon("alert"),
    el(
      "p",
      {},
      el("strong", {}, "Nothing here matches. "),
      `Of unrelated requests, ${percent(certificate.nothing)} come as near to a memory as this. The nearest ones are below, as guesses.`,
    ),
  );

export function failed(error, again) {
  const box = absent(error.message);
  box.classList.add("failed");
  box.append(button("recall", "Try again", again));
  return box;
}

// A reload loses files: an address holds words and ids only.
export const lost = (names) =>
  absent(`${names.map((name) => `“${name}”`).join(", ")} ${names.length === 1 ? "is" : "are"} not part of the address: choose ${names.length === 1 ? "it" : "them"} again.`);

export const ORDERS = { newest: "the newest first", oldest: "the oldest first" };

const total = (months) => months.reduce((sum, { count }) => sum + count, 0);

// Months of few records would be little more than headings.
export const headings = (months) => (total(months) < FEW * months.length ? "year" : "month");

// How many memories there are, by the months of the timeline, and their order.
export function counted(filters, months) {
  const all = filters.wanted.length ? 0 : total(months);
  const order = filters.state.sort === "added" ? "the last remembered first" : (ORDERS[filters.state.sort] ?? "the latest first");
  const line = `${all ? `${plural(all, "memory", "memories")}, ` : ""}${order}.`;
  return `${line[0].toUpperCase()}${line.slice(1)} Ask with any part of one.`;
}

export const welcome = (choose) =>
  el(
    "div",
    { class: "welcome", "data-drop": "add" },
    el("div", { class: "welcome-art", "aria-hidden": "true" }, ["image", "audio", "text", "video"].map((name) => icon(name))),
    el("p", { class: "welcome-title" }, "Drop something here"),
    el("p", {}, "Photos, sounds, videos and notes. Later a few words, a sketch or a hummed tune brings them back."),
    button("add", "Choose what to remember", choose, { kind: "go" }),
  );
