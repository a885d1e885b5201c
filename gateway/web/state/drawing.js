// Sends the form as a job. A request that cannot be sent now is sent once the service is back.
import { signal } from "../vendor/preact.js";
import { Problem, post } from "../lib/api.js";
import { randomId } from "../lib/random.js";
import { stored } from "../lib/storage.js";
import { fieldErrors, form, rememberPrompt } from "./form.js";
import { jobAccepted } from "./jobs.js";
import { announce, notify, notifyError } from "./notices.js";
import { requestOf } from "./request.js";
import { diskTrouble } from "./workers.js";

/** @typedef {{key: string, path: string, body: Record<string, any>, title: string}} Outgoing */

/** Requests that wait for the connection. */
export const outbox = signal(/** @type {Outgoing[]} */ ([]));
export const isSending = signal(false);

/** The name that others see beside one's jobs. */
export const nickname = stored("nickname", "");

/** What the middle of the page shows: a stored image, or null to follow one's own jobs. */
export const shownImage = signal(/** @type {string | null} */ (null));

/** Draw what the form says. It always queues. */
export async function draw() {
  if (form.value.prompt.trim() === "") {
    fieldErrors.value = { prompt: "Say what to draw." };
    focusField("prompt");
    return;
  }
  isSending.value = true;
  try {
    const body = await requestOf(form.value);
    rememberPrompt(form.value.prompt);
    await submit(body);
  } catch (error) {
    notifyError(error);
  } finally {
    isSending.value = false;
  }
}

/** Every job of the page waits in the queue, and carries its sender's name. */
const labels = () => ({ queue: true, ...(nickname.value && { client_name: nickname.value }) });

/**
 * Send a job and return its uuid, or null when it was refused or waits for the connection.
 * @param {Record<string, any>} body
 * @param {{path?: string, title?: string}} [options]
 * @returns {Promise<string | null>}
 */
export async function submit(body, { path = "image/generate", title = body.prompt } = {}) {
  const outgoing = { key: randomId(), path, body: { ...labels(), ...body }, title };
  try {
    return await deliver(outgoing);
  } catch (error) {
    if (error instanceof Problem && error.isOffline) {
      outbox.value = [...outbox.value, outgoing];
      announce("Not connected. The job is sent once the service is back.");
      return null;
    }
    showRefusal(error);
    return null;
  }
}

/**
 * @param {Outgoing} outgoing
 * @returns {Promise<string>}
 */
async function deliver({ key, path, body, title }) {
  const { generation_uuid: uuid } = await post(path, body, { "Idempotency-Key": key });
  diskTrouble.value = null;
  shownImage.value = null;
  jobAccepted(uuid, title);
  announce("The job is in the queue.");
  return uuid;
}

/** The service is back: send what waits, in its order. */
export async function flushOutbox() {
  while (outbox.value.length > 0) {
    const [next, ...others] = outbox.value;
    try {
      await deliver(next);
    } catch (error) {
      if (error instanceof Problem && error.isOffline) return;
      showRefusal(error);
    }
    outbox.value = others;
  }
}

/** @param {string} key */
export function dropOutgoing(key) {
  outbox.value = outbox.value.filter((each) => each.key !== key);
}

/**
 * Show a refusal where it belongs: at its field, as a band, or as a message.
 * @param {unknown} error
 */
export function showRefusal(error) {
  if (!(error instanceof Problem)) {
    notifyError(error);
    return;
  }
  if (error.status === 507) diskTrouble.value = error.message;
  if (error.status === 422 && error.errors.length > 0) {
    fieldErrors.value = Object.fromEntries(
      error.errors.map(({ field, message }) => [fieldOf(field), sentence(message)]),
    );
    announce(`Not accepted. ${sentence(error.message)}`);
    focusField(fieldOf(error.errors[0].field));
    return;
  }
  const again = { label: "Try again", act: () => void draw() };
  notify(sentence(error.message), { kind: "error", act: error.status === 429 ? again : undefined });
}

/** @param {string} path such as loras.0.name */
function fieldOf(path) {
  return path.split(".")[0];
}

/** @param {string} text */
function sentence(text) {
  const first = text.slice(0, 1).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(first) ? first : `${first}.`;
}

/** @param {string} field */
export function focusField(field) {
  const find = () => document.querySelector(`[data-field="${CSS.escape(field)}"]`);
  const focus = () => {
    const input = find();
    input?.closest("details")?.setAttribute("open", "");
    if (input instanceof HTMLElement) input.focus();
  };
  requestAnimationFrame(() => {
    if (find() === null) document.querySelector("details.more")?.setAttribute("open", "");
    // What opens is loaded first, so the field may be there a moment later.
    if (find() === null) setTimeout(focus, 300);
    else focus();
  });
}
