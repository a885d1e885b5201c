// Turns values into short text for people.

const DAY_MS = 86_400_000;

/** @param {number | null | undefined} seconds */
export function seconds(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "";
  if (seconds < 0.95) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** @param {number | null | undefined} bytes */
export function bytes(bytes) {
  if (bytes === null || bytes === undefined) return "unknown";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/**
 * @param {number} count
 * @param {string} noun
 * @param {string} [plural]
 */
export function counted(count, noun, plural = `${noun}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? noun : plural}`;
}

/** @param {string} isoDay YYYY-MM-DD */
export function dayTitle(isoDay) {
  const day = new Date(`${isoDay}T12:00:00`);
  if (Number.isNaN(day.getTime())) return isoDay;
  const today = new Date();
  today.setHours(12, 0, 0, 0);
  const ago = Math.round((today.getTime() - day.getTime()) / DAY_MS);
  if (ago === 0) return "Today";
  if (ago === 1) return "Yesterday";
  const isThisYear = day.getFullYear() === today.getFullYear();
  return day.toLocaleDateString("en-GB", {
    weekday: ago < 7 ? "long" : undefined,
    day: "numeric",
    month: "long",
    year: isThisYear ? undefined : "numeric",
  });
}

/** @param {string | null | undefined} iso */
export function moment(iso) {
  if (!iso) return "";
  return new Date(iso).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}

/**
 * A short text of any value of a record.
 * @param {unknown} value
 * @returns {string}
 */
export function valueText(value) {
  if (value === null || value === undefined) return "none";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : `${+value.toFixed(4)}`;
  if (typeof value === "object") return JSON.stringify(value);
  return String(value);
}

/** @param {string} text @param {number} length */
export function shortened(text, length) {
  return text.length > length ? `${text.slice(0, length - 1).trimEnd()}…` : text;
}
