// Reads a search such as `fox "in snow" model:xl after:2026-11-01 is:star` into the service's filters.

const NAMES = ["model", "seed", "size", "lora", "owner", "client", "batch", "after", "before"];
const FLAGS = ["star", "failed", "trash"];
const TOKEN = /(\w+):("[^"]*"|\S+)|"[^"]*"|\S+/g;

/**
 * @param {string} text
 * @returns {Record<string, string>}
 */
export function parseQuery(text) {
  /** @type {Record<string, string>} */
  const query = {};
  const words = [];
  for (const [token, name, value] of text.matchAll(TOKEN)) {
    if (name && NAMES.includes(name)) query[name] = value.replaceAll('"', "");
    else if (name === "is" && FLAGS.includes(value)) query[value] = "true";
    else words.push(token);
  }
  if (words.length > 0) query.q = words.join(" ");
  return query;
}

/**
 * Put a filter into the text, or take it out where the value is empty.
 * @param {string} text
 * @param {string} name a filter, or a flag with the value "true"
 * @param {string} value
 */
export function withFilter(text, name, value) {
  const isFlag = FLAGS.includes(name);
  const others = [...text.matchAll(TOKEN)]
    .map(([token]) => token)
    .filter((token) => (isFlag ? token !== `is:${name}` : !token.startsWith(`${name}:`)));
  if (value) others.push(isFlag ? `is:${name}` : `${name}:${/\s/.test(value) ? `"${value}"` : value}`);
  return others.join(" ");
}
