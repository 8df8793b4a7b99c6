// Details of a recall: the energy landscape, and the certificate in words.

import * as api from "./api.js";
import { dialog, el, percent } from "./dom.js";
import { absent } from "./media.js";

export async function openRecallDetails(cues, certificate) {
  const stop = new AbortController();
  let url = null;
  const { body } = dialog("How it settled", {
    wide: true,
    onclose: () => {
      stop.abort();
      if (url) URL.revokeObjectURL(url);
    },
  });
  const place = el("div", { class: "landscape" }, el("p", { class: "status working", role: "status" }, "Drawing the landscape…"));
  body.append(place, words(certificate));
  try {
    url = await api.landscape(cues, stop.signal);
    const steps = certificate.steps;
    place.replaceChildren(
      el("img", { src: url, alt: `The energy around the first cue as a map; the cue settles into a valley in ${steps} steps.` }),
    );
  } catch (error) {
    if (error.name !== "AbortError") place.replaceChildren(absent(error.message));
  }
}

function words(c) {
  const energies = c.energies ?? [];
  const fell = energies.length > 1 ? `${energies[0].toFixed(3)} → ${energies.at(-1).toFixed(3)}, never rising` : "no step was needed";
  const rows = [
    ["Unrelated cues", percent(c.nothing), "the share of unrelated cues that match as well; above 20 % nothing is said to match"],
    ["Energy", fell, c.converged ? `came to rest in ${c.steps} steps` : `had not come to rest after ${c.steps} steps`],
    ["Sharpness", c.beta?.toFixed(2), "beta, in units of chance"],
    ["Left out", c.tail_mass?.toExponential(1), "exact probability of all memories that were not kept for the answer"],
    ["Contraction", c.contraction?.toPrecision(3), c.contraction < 1 ? "cues near this one come to the same answer" : "no promise about cues nearby"],
    ["Looked at", c.candidates === null ? "every memory" : `${c.candidates} candidates`, "how many were compared"],
  ];
  return el(
    "dl",
    { class: "facts wide-facts" },
    rows.map(([name, value, meaning]) => el("div", {}, el("dt", {}, name), el("dd", {}, el("strong", {}, value ?? "unknown"), " ", el("span", {}, meaning)))),
  );
}
