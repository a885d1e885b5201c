// Light or dark: the system's choice until the user makes one.
import { effect } from "../vendor/preact.js";
import { stored } from "../lib/storage.js";

/** "system", "light" or "dark" */
export const theme = stored("theme", "system");

effect(() => {
  document.documentElement.dataset.theme = theme.value;
});

export function isDark() {
  if (theme.value !== "system") return theme.value === "dark";
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

export function toggleTheme() {
  theme.value = isDark() ? "light" : "dark";
}
