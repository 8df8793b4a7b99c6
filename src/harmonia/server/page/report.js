// The report of the memory: capacity, recall under noise, and hubs.

import * as api from "./api.js";
import { dialog, el, icon, percent, plural } from "./dom.js";
import { absent } from "./media.js";

export async function openReport() {
  const stop = new AbortController();
  const { body } = dialog("The memory's report", { wide: true, onclose: () => stop.abort() });
  body.append(el("p", { class: "status working", role: "status" }, "Looking through the memory…"));
  try {
    const report = await api.report(stop.signal);
    const read = report.read < report.records ? `, of which ${report.read.toLocaleString("en")} were looked at` : "";
    body.replaceChildren(
      el("p", { class: "lead" }, `It holds ${plural(report.records, "memory", "memories")}${read}.`),
      ...report.encoders.map(section),
    );
  } catch (error) {
    if (error.name !== "AbortError") body.replaceChildren(absent(error.message));
  }
}

function section(one) {
  return el(
    "section",
    { class: "report" },
    el("h3", {}, icon(one.modality), `${one.modality}, by ${one.encoder}`),
    el("p", { class: "status" }, `${plural(one.parts, "part")} of ${plural(one.records, "memory", "memories")}; about ${Math.round(one.effective_dim)} of ${one.dim} dimensions in use`),
    el("h4", {}, "Recalled from a noisy cue"),
    el("ul", { class: "rooms" }, one.room.map(room)),
    el(
      "dl",
      { class: "facts" },
      fact("Safe to recall", percent(one.basins.certified), "of the parts looked at surely bring themselves back"),
      fact("False memories", percent(one.attractors.spurious / one.attractors.starts), "of random beginnings settle on a blend of many"),
      fact("Crowding", one.hubs.skewness.toFixed(2), `skewness of how often a memory is answered; ${one.hubs.chance.toFixed(2)} by chance`),
    ),
    one.hubs.top.length ? el("h4", {}, "Answered most often") : null,
    el("ul", { class: "hubs" }, one.hubs.top.map((hub) => el("li", {}, el("span", { dir: "auto" }, hub.name), el("span", { class: "number" }, `${hub.count} of ${one.hubs.probes}`)))),
  );
}

function room(one) {
  const bar = el("span", { class: "bar", "aria-hidden": "true" }, el("span"));
  bar.firstChild.style.setProperty("--part", one.recalled.toFixed(4));
  const left = one.more === null ? "room for many more" : one.more > 0 ? `room for ${one.more.toLocaleString("en")} more` : "no room left";
  return el("li", {}, el("span", {}, `noise ${one.noise}`), bar, el("span", { class: "number" }, percent(one.recalled)), el("span", { class: "room-left" }, left));
}

const fact = (name, value, meaning) =>
  el("div", {}, el("dt", {}, name), el("dd", {}, el("strong", {}, value), " ", el("span", {}, meaning)));
