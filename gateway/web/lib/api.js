// Sends requests to the service. It shows nothing: a refusal is thrown as a Problem.

/** @typedef {{field: string, message: string, value?: unknown}} FieldError */

/** The service refused a request, or it could not be reached (status 0). */
export class Problem extends Error {
  /**
   * @param {number} status
   * @param {string} detail
   * @param {FieldError[]} errors
   * @param {number | null} retryAfterS
   */
  constructor(status, detail, errors = [], retryAfterS = null) {
    super(detail);
    this.status = status;
    this.errors = errors;
    this.retryAfterS = retryAfterS;
  }

  get isOffline() {
    return this.status === 0;
  }
}

/** @type {() => Promise<boolean>} */
let askForKey = async () => false;

/**
 * Set what asks the user for a key after a 401. It resolves to true when there is a new one.
 * @param {() => Promise<boolean>} ask
 */
export function onKeyRequired(ask) {
  askForKey = ask;
}

/** @typedef {{body?: unknown, headers?: Record<string, string>, signal?: AbortSignal}} Options */

/**
 * Send a request and return its response. A 401 asks for a key and sends it again.
 * @param {string} method
 * @param {string} path relative to the page, so that a proxy may add a prefix
 * @param {Options} [options]
 * @returns {Promise<Response>}
 */
export async function send(method, path, options = {}) {
  const reply = await sendOnce(method, path, options);
  if (reply.status === 401 && (await askForKey())) return send(method, path, options);
  if (!reply.ok) throw await problemOf(reply);
  return reply;
}

/**
 * Send a request without asking for a key.
 * @param {string} method
 * @param {string} path
 * @param {Options} [options]
 * @returns {Promise<Response>}
 */
export async function sendOnce(method, path, { body, headers = {}, signal } = {}) {
  /** @type {RequestInit} */
  const init = { method, headers: { ...headers }, signal, credentials: "same-origin" };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { "Content-Type": "application/json", ...headers };
  }
  try {
    return await fetch(path, init);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Problem(0, "The service cannot be reached.");
  }
}

/**
 * @param {Response} reply
 * @returns {Promise<Problem>}
 */
export async function problemOf(reply) {
  const seconds = Number(reply.headers.get("Retry-After"));
  try {
    const { detail, errors } = await reply.json();
    return new Problem(reply.status, String(detail), errors ?? [], seconds || null);
  } catch {
    return new Problem(reply.status, `The service answered ${reply.status}.`, [], seconds || null);
  }
}

/**
 * GET and parse JSON.
 * @param {string} path
 * @param {Record<string, string | number | boolean | undefined | null>} [query]
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export async function get(path, query = {}, signal = undefined) {
  const reply = await send("GET", path + queryText(query), { signal });
  return reply.json();
}

/**
 * POST JSON and parse the JSON of the answer, if there is any.
 * @param {string} path
 * @param {unknown} [body]
 * @param {Record<string, string>} [headers]
 * @returns {Promise<any>}
 */
export async function post(path, body, headers) {
  const reply = await send("POST", path, { body, headers });
  return reply.status === 204 ? null : reply.json();
}

/**
 * @param {string} path
 * @returns {Promise<void>}
 */
export async function remove(path) {
  await send("DELETE", path);
}

/** @param {Record<string, string | number | boolean | undefined | null>} query */
export function queryText(query) {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") params.set(name, String(value));
  }
  const text = params.toString();
  return text ? `?${text}` : "";
}

/**
 * The address of an image file.
 * @param {string} name UUID or UUID-N
 * @param {{px?: number, download?: boolean}} [options]
 */
export function imageUrl(name, { px, download } = {}) {
  if (px) return `image/files/${name}.webp?px=${px}`;
  return `image/files/${name}.png${download ? "?download=true" : ""}`;
}
