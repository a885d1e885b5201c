// The key of this browser: taken out of the address, or asked for, and exchanged for a cookie.
import { signal } from "../vendor/preact.js";
import { reconnect } from "../lib/event_stream.js";
import { onKeyRequired, problemOf, sendOnce } from "../lib/api.js";

/** Whether the dialog that asks for a key is open, and what went wrong with the last one. */
export const keyDialog = signal({ isOpen: false, error: "" });

/** @type {{key: string | null, scopes: string[], key_required: boolean}} */
const NOBODY = { key: null, scopes: [], key_required: false };
export const session = signal(NOBODY);

/** @type {((isKeyed: boolean) => void)[]} */
let waiting = [];

/** The user closed the dialog, so only a click opens it again. */
export const isSignInDeclined = signal(false);

/** Take `#key=...` out of the address at once, so that it is in no history and no bookmark. */
export function takeKeyFromAddress() {
  const match = /^#key=([^&]+)/.exec(location.hash);
  if (match === null) return null;
  history.replaceState(null, "", location.pathname + location.search);
  return decodeURIComponent(match[1]);
}

/**
 * Exchange a key for the cookie. Returns an empty text, or why it was refused.
 * @param {string} key
 * @returns {Promise<string>}
 */
export async function signIn(key) {
  const reply = await sendOnce("POST", "server/session", {
    headers: { Authorization: `Bearer ${key}` },
  });
  if (reply.ok) return "";
  if (reply.status === 401) return "This key is not valid.";
  return (await problemOf(reply)).message;
}

/** @param {string} key */
export async function submitKey(key) {
  let error;
  try {
    error = await signIn(key);
  } catch (problem) {
    error = String(/** @type {Error} */ (problem).message);
  }
  if (error) {
    keyDialog.value = { isOpen: true, error };
    return;
  }
  keyDialog.value = { isOpen: false, error: "" };
  isSignInDeclined.value = false;
  reconnect();
  for (const resolve of waiting.splice(0)) resolve(true);
  void loadSession();
}

export function cancelKey() {
  keyDialog.value = { isOpen: false, error: "" };
  isSignInDeclined.value = waiting.length > 0 || isSignInDeclined.value;
  for (const resolve of waiting.splice(0)) resolve(false);
}

export async function loadSession() {
  const reply = await sendOnce("GET", "server/session");
  if (reply.ok) session.value = await reply.json();
}

export function openKeyDialog() {
  keyDialog.value = { isOpen: true, error: "" };
}

onKeyRequired(() => {
  if (isSignInDeclined.value) return Promise.resolve(false);
  keyDialog.value = { ...keyDialog.value, isOpen: true };
  return new Promise((resolve) => waiting.push(resolve));
});
