// Files dropped or pasted anywhere on the page: as cues, or to remember.

import { $ } from "./dom.js";

const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");

// `cue` and `add` are called with the files.
export function watchDrops({ cue, add }) {
  const overlay = $("#drop");
  let inside = 0;
  const hide = () => {
    inside = 0;
    overlay.hidden = true;
    overlay.querySelectorAll(".over").forEach((zone) => zone.classList.remove("over"));
  };
  const busy = () => document.querySelector("dialog[open]");
  document.addEventListener("dragenter", (event) => {
    if (!carriesFiles(event) || busy()) return;
    inside += 1;
    overlay.hidden = false;
  });
  document.addEventListener("dragleave", () => {
    inside -= 1;
    if (inside <= 0) hide();
  });
  document.addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    for (const zone of overlay.children) zone.classList.toggle("over", zone.contains(event.target));
  });
  document.addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    hide();
    if (busy()) return;
    const files = [...event.dataTransfer.files];
    const where = event.target.closest("[data-drop]")?.dataset.drop;
    if (where === "add") add(files);
    else cue(files);
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length || busy()) return;
    event.preventDefault();
    cue(files);
  });
}
