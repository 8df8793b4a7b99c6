// Creates and finds elements. The page never parses HTML: all content is set as text.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (selector, root = document) => root.querySelector(selector);

// Creates an element: `on…` adds listeners, known properties are set, the rest become attributes.
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (name in node && typeof node[name] !== "object") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `page/icons.svg#${name}`);
  svg.append(use);
  return svg;
}

// A button with an icon; with `shown: false` the label is for screen readers and the tooltip only.
export function button(name, label, onclick, { shown = true, kind = "quiet", ...props } = {}) {
  const text = el("span", { class: shown ? "" : "unseen" }, label);
  return el("button", { type: "button", class: kind, onclick, title: shown ? null : label, ...props }, icon(name), text);
}

// A modal dialog with a title and a close button; closing removes it from the page.
export function dialog(title, { wide = false, onclose = null } = {}) {
  const id = `dialog-${Math.random().toString(36).slice(2)}`;
  const body = el("div", { class: "dialog-body" });
  const box = el(
    "dialog",
    { class: wide ? "wide" : "", "aria-labelledby": id },
    el(
      "header",
      { class: "dialog-head" },
      el("h2", { id, dir: "auto" }, title),
      button("close", "Close", () => box.close(), { shown: false }),
    ),
    body,
  );
  box.addEventListener("close", () => {
    box.remove();
    onclose?.();
  });
  // a click outside closes the dialog
  box.addEventListener("pointerdown", (event) => event.target === box && box.close());
  document.body.append(box);
  box.showModal();
  return { box, body };
}

export const percent = (value) => {
  const whole = value * 100;
  if (whole > 0 && whole < 1) return "<1 %";
  return whole < 100 && whole >= 99.5 ? ">99 %" : `${Math.round(whole)} %`;
};

export const plural = (count, word, words = `${word}s`) =>
  `${count.toLocaleString("en")} ${count === 1 ? word : words}`;

export const shorten = (text, width) => {
  const line = text.trim().replace(/\s+/g, " ");
  return line.length <= width ? line : `${line.slice(0, width - 1).trimEnd()}…`;
};

// Announces a message to screen readers at once.
export function say(text) {
  $("#loud").textContent = "";
  requestAnimationFrame(() => ($("#loud").textContent = text));
}
