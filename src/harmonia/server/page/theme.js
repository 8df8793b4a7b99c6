// Applies the colour theme before the first paint (a classic script, to avoid a flash). The choice is stored.
(() => {
  const ORDER = ["system", "light", "dark"];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let chosen = "system";
  try {
    const kept = localStorage.getItem("theme");
    if (ORDER.includes(kept)) chosen = kept;
  } catch {
    // without storage the theme follows the system
  }
  const apply = () => {
    document.documentElement.dataset.theme = chosen === "system" ? (dark.matches ? "dark" : "light") : chosen;
  };
  apply();
  dark.addEventListener("change", apply);
  // Switches to the next theme (system, light, dark) and returns its name.
  window.nextTheme = () => {
    chosen = ORDER[(ORDER.indexOf(chosen) + 1) % ORDER.length];
    apply();
    try {
      localStorage.setItem("theme", chosen);
    } catch {
      // the choice lasts for this visit
    }
    return chosen === "system" ? "as the system" : chosen;
  };
})();
