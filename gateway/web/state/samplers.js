// Friendly names of schedulers, from the service where it lists aliases.
import { capabilities } from "./models.js";

/**
 * @typedef {{label: string, value: string}} Sampler
 */

/**
 * The samplers that a model supports: friendly names first come from the service's aliases.
 * @param {string[]} classes
 * @returns {Sampler[]}
 */
export function samplersOf(classes) {
  const aliases = aliasPairs();
  const offered = new Set(classes);
  const named = aliases.filter((each) => offered.has(each.scheduler));
  const covered = new Set(named.map((each) => each.scheduler));
  const samplers = named.map((each) => ({ label: each.alias, value: each.alias }));
  for (const name of classes) {
    if (!covered.has(name)) samplers.push({ label: words(name), value: name });
  }
  return samplers;
}

/** The name that people read. @param {string | null | undefined} scheduler */
export function samplerLabel(scheduler) {
  if (!scheduler) return "";
  const own = aliasPairs().find((each) => each.scheduler === scheduler && each.isPlain);
  return own?.alias ?? words(scheduler);
}

/** @param {string} name */
function words(name) {
  return name
    .replace(/Scheduler$/, "")
    .replace(/Discrete$/, "")
    .replace(/([a-z])([A-Z])/g, "$1 $2");
}

/** @returns {{alias: string, scheduler: string, isPlain: boolean}[]} */
function aliasPairs() {
  const aliases = capabilities.value.aliases;
  if (!aliases) return [];
  const entries = Array.isArray(aliases)
    ? aliases.map((each) => [each.alias ?? each.name, each])
    : Object.entries(aliases);
  return entries
    .map(([alias, value]) => ({
      alias: String(alias),
      scheduler: typeof value === "string" ? value : String(value.scheduler ?? value[0] ?? ""),
      isPlain: typeof value === "string" || Object.keys(value.scheduler_options ?? {}).length === 0,
    }))
    .filter((each) => /[A-Z]/.test(each.alias) && !each.alias.endsWith("Scheduler"));
}
