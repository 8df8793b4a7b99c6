// Colours before the first paint: a classic script, so that nothing flashes. What was chosen is remembered.
(() => {
  const ORDER = ["system", "light", "dark"];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let chosen = "system";
  try {
    const kept = localStorage.getItem("theme");
    if (ORDER.includes(kept)) chosen = kept;
  } catch {
    // a browser that keeps nothing follows the system
  }
  const apply = () => {
    document.documentElement.dataset.theme = chosen === "system" ? (dark.matches ? "dark" : "light") : chosen;
  };
  apply();
  dark.addEventListener("change", apply);
  // The next choice: as the system, light, dark. Returns what it is called.
  window.nextTheme = () => {
    chosen = ORDER[(ORDER.indexOf(chosen) + 1) % ORDER.length];
    apply();
    try {
      localStorage.setItem("theme", chosen);
    } catch {
      // it holds for this visit
    }
    return chosen === "system" ? "as the system" : chosen;
  };
})();
