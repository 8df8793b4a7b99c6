// The timeline: a list of months with the number of their records; a press goes there.

import { monthName } from "./dates.js";
import { $, el } from "./dom.js";

export class Timeline {
  // `jump` is called with a month, such as "2019-07".
  constructor(nav, jump) {
    this.nav = nav;
    this.jump = jump;
    let waiting = false;
    addEventListener("scroll", () => {
      if (waiting || nav.hidden) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        this.follow();
      });
    }, { passive: true });
  }

  // Shows months as the server counts them; one month alone needs no timeline.
  show(months) {
    this.nav.hidden = months.length < 2;
    document.body.classList.toggle("dated", !this.nav.hidden);
    if (this.nav.hidden) return this.nav.replaceChildren();
    const most = Math.max(...months.map(({ count }) => count));
    const years = grouped(months);
    this.nav.replaceChildren(
      el(
        "ol",
        { class: "years" },
        [...years].map(([year, its]) =>
          el("li", { class: "year" }, el("h3", {}, year), el("ol", { class: "months" }, its.map((one) => el("li", {}, this.#month(one, most))))),
        ),
      ),
    );
    this.follow();
  }

  // Marks the month at the top of the window.
  follow() {
    const cells = [...document.querySelectorAll(".cell")];
    const seen = cells.find((cell) => cell.getBoundingClientRect().bottom > innerHeight / 5);
    const month = seen?.dataset.month;
    for (const one of this.nav.querySelectorAll("button")) {
      const on = one.dataset.month === month;
      if (on === (one.getAttribute("aria-current") === "true")) continue;
      one.setAttribute("aria-current", String(on));
      if (on) this.#reveal(one);
    }
  }

  #month({ month, count }, most) {
    const bar = el("span", { class: "bar", "aria-hidden": "true" }, el("span"));
    bar.firstChild.style.setProperty("--part", (count / most).toFixed(4));
    const node = el(
      "button",
      { type: "button", "aria-label": `${monthName(month)}: ${count.toLocaleString("en")}`, onclick: () => this.jump(month) },
      el("span", { class: "month-name" }, monthName(month, true)),
      bar,
      el("span", { class: "number" }, count.toLocaleString("en")),
    );
    node.dataset.month = month;
    return node;
  }

  // Scrolls the timeline itself, not the page.
  #reveal(node) {
    const list = $(".years", this.nav);
    const [box, own] = [list.getBoundingClientRect(), node.getBoundingClientRect()];
    if (own.top < box.top || own.bottom > box.bottom) list.scrollTop += own.top - box.top - box.height / 2;
    if (own.left < box.left || own.right > box.right) list.scrollLeft += own.left - box.left - box.width / 2;
  }
}

const yearOf = ({ month }) => month.slice(0, 4);

function grouped(months) {
  const years = new Map();
  for (const one of months) years.set(yearOf(one), [...(years.get(yearOf(one)) ?? []), one]);
  return years;
}
