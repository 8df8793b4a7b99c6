// Keyboard shortcuts, their list, and the switch that turns them off.

import { dialog, el } from "./dom.js";

const OFF = "shortcuts-off";
const ELSEWHERE = [
  ["Enter", "recall; Shift and Enter for a new line"],
  ["Arrow keys", "from memory to memory, once one has the focus; in the viewer to the previous and the next"],
  ["Shift", "with a click on a second box: select all between"],
  ["Escape", "close what is open, or clear the selection"],
  ["Ctrl V", "recall by a copied picture"],
];

// `actions`: key -> [description, function]. Inactive while the user types or a dialog is open.
export function listen(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (localStorage.getItem(OFF) || document.querySelector("dialog[open]")) return;
    if (event.target.closest("input:not([type=checkbox]), textarea, select, audio, video, [contenteditable]")) return;
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action[1]();
  });
}

export function openHelp(actions) {
  const { body } = dialog("Keyboard shortcuts");
  const off = el("input", {
    type: "checkbox",
    checked: !localStorage.getItem(OFF),
    onchange: () => (off.checked ? localStorage.removeItem(OFF) : localStorage.setItem(OFF, "1")),
  });
  const rows = [...Object.entries(actions).map(([letter, [what]]) => [letter, what]), ...ELSEWHERE];
  body.append(
    el("dl", { class: "facts keys" }, rows.map(([key, what]) => el("div", {}, el("dt", {}, el("kbd", {}, key)), el("dd", {}, what)))),
    el("label", { class: "pick" }, off, "Shortcuts of a single letter are on"),
  );
}
