// Random ids and seeds. crypto.randomUUID is missing on plain http, which many home networks use.

/** @returns {string} a random id of 32 hexadecimal digits */
export function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @returns {number} a seed below 2^32 */
export function randomSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}
