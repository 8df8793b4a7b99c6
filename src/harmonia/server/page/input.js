// Where cues come from: the words, chosen, dropped and pasted files, the sketch pad, the microphone, the keyboard.

import { $, say } from "./dom.js";
import { watchDrops } from "./dropzone.js";
import { openMicrophone } from "./microphone.js";
import { openReport } from "./report.js";
import { listen, openHelp } from "./shortcuts.js";
import { openSketch } from "./sketch.js";

// `on`: words, file, submitted, cleared, remember, selectAll and told are called with what came in.
export function takeInput(on) {
  const words = $("#words");

  // only for browsers without field-sizing
  const fit = () => (words.rows = Math.min(6, Math.max(1, words.value.split("\n").length)));

  function submit() {
    const text = words.value;
    words.value = "";
    fit();
    if (text.trim()) on.words(text);
    // on a phone the keyboard would cover the answer
    if (matchMedia("(hover: none)").matches) words.blur();
    on.submitted();
  }

  function files(several) {
    const refused = several.filter((file) => !on.file(file));
    if (!refused.length) return;
    const text = `${refused[0].name} is not a picture, sound or video.`;
    on.told(text);
    say(text);
  }

  function pick(accept) {
    const input = $("#picked");
    input.accept = accept;
    input.click();
  }

  const sketch = () => openSketch((file) => on.file(file, "sketch"));
  const microphone = () => openMicrophone((file) => on.file(file, "recording"));
  const colours = () => say(`Colours: ${window.nextTheme()}`);
  const help = () => openHelp(actions);
  const actions = {
    "/": ["go to the words", () => words.focus()],
    a: ["remember something", () => on.remember()],
    s: ["sketch", sketch],
    m: ["record a sound", microphone],
    f: ["filters", () => {
      $("#filters").open = !$("#filters").open;
      $("#filters summary").focus();
    }],
    x: ["take all cues away", on.cleared],
    e: ["select every memory that is shown", on.selectAll],
    r: ["the memory's report", () => openReport()],
    t: ["colours: as the system, light, dark", colours],
    "?": ["these shortcuts", help],
  };

  listen(actions);
  watchDrops({ cue: files, add: (several) => on.remember(several) });
  $("#cue-box").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  words.addEventListener("input", fit);
  words.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  });
  for (const way of document.querySelectorAll("[data-pick]")) way.addEventListener("click", () => pick(way.dataset.pick));
  $("#picked").addEventListener("change", (event) => {
    files([...event.target.files]);
    event.target.value = "";
  });
  $("#sketch").addEventListener("click", sketch);
  $("#microphone").addEventListener("click", microphone);
  $("#add").addEventListener("click", () => on.remember());
  $("#theme").addEventListener("click", colours);
  $("#help").addEventListener("click", help);
  return {
    // Puts words back into the box, to change them.
    edit(text) {
      words.value = text;
      fit();
      words.focus();
    },
  };
}
