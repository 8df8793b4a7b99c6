// The sketch pad. Keyboard: arrow keys move the pen, the space bar lowers and lifts it.

import { button, dialog, el } from "./dom.js";

const SIDE = 384;
const STEP = 8;
const COLOURS = [
  ["#1c1c1c", "black"], ["#8a8f8d", "grey"], ["#c8372d", "red"], ["#e58a1f", "orange"], ["#f0ca3a", "yellow"],
  ["#3c9a4c", "green"], ["#2f7fd0", "blue"], ["#8253b5", "violet"], ["#8c5a35", "brown"], ["#ffffff", "white"],
];
const WIDTHS = [["4", "fine"], ["10", "medium"], ["26", "broad"]];
const UNDO = 30;

// Opens the pad; `done` is called with a PNG file.
export function openSketch(done) {
  const { box, body } = dialog("Sketch what you remember");
  const canvas = el("canvas", {
    width: SIDE, height: SIDE, tabIndex: 0, role: "img",
    "aria-label": "Sketch pad. Arrow keys move the pen, the space bar lowers and lifts it.",
  });
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.lineCap = pen.lineJoin = "round";
  pen.fillStyle = "#ffffff";
  pen.fillRect(0, 0, SIDE, SIDE);
  const past = [];
  const colours = choices("Colour", "colour", COLOURS, (input, value) => input.style.setProperty("--dye", value));
  const widths = choices("Pen", "width", WIDTHS, (input, value) => input.style.setProperty("--width", `${value}px`));
  widths.querySelectorAll("input")[1].checked = true;
  const use = button("check", "Use the sketch", () => {
    canvas.toBlob((blob) => {
      box.close();
      done(new File([blob], "sketch.png", { type: "image/png" }));
    });
  }, { kind: "go", disabled: true });

  const keep = () => {
    past.push(pen.getImageData(0, 0, SIDE, SIDE));
    if (past.length > UNDO) past.shift();
    use.disabled = false;
    undo.disabled = false;
  };
  const undo = button("undo", "Undo", () => {
    pen.putImageData(past.pop(), 0, 0);
    use.disabled = undo.disabled = past.length === 0;
  }, { disabled: true });
  const line = (from, to) => {
    pen.strokeStyle = colours.querySelector(":checked").value;
    pen.lineWidth = Number(widths.querySelector(":checked").value);
    pen.beginPath();
    pen.moveTo(...from);
    pen.lineTo(...to);
    pen.stroke();
  };
  drawByPointer(canvas, keep, line);
  const place = el("p", { class: "status", role: "status" });
  drawByKeys(canvas, keep, line, place);

  body.append(el("div", { class: "pad" }, canvas, el("div", { class: "pad-tools" }, colours, widths, place)), el("div", { class: "row end" }, undo, use));
  canvas.focus();
}

function choices(legend, name, values, dress) {
  return el(
    "fieldset",
    { class: `choices ${name}` },
    el("legend", {}, legend),
    values.map(([value, label], at) => {
      const input = el("input", { type: "radio", name, value, checked: at === 0, "aria-label": label, title: label });
      dress(input, value);
      return input;
    }),
  );
}

function drawByPointer(canvas, keep, line) {
  let last = null;
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * SIDE) / box.width, ((event.clientY - box.top) * SIDE) / box.height];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    keep();
    last = at(event);
    line(last, last);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    for (const one of event.getCoalescedEvents?.() ?? [event]) {
      const next = at(one);
      line(last, next);
      last = next;
    }
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (last = null));
}

function drawByKeys(canvas, keep, line, place) {
  const moves = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
  let at = [SIDE / 2, SIDE / 2];
  let down = false;
  canvas.addEventListener("keydown", (event) => {
    if (event.key === " ") {
      down = !down;
      if (down) {
        keep();
        line(at, at);
      }
    } else if (event.key in moves) {
      const next = at.map((value, axis) => Math.min(SIDE, Math.max(0, value + moves[event.key][axis])));
      if (down) line(at, next);
      at = next;
    } else return;
    event.preventDefault();
    const [x, y] = at.map((value) => Math.round((100 * value) / SIDE));
    place.textContent = `Pen ${down ? "down" : "up"}, ${x} across, ${y} down (of 100)`;
  });
}
