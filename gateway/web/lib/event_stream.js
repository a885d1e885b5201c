// Keeps one event stream of the whole service. Where none can be had it polls, and says who is away.
import { signal } from "../vendor/preact.js";
import { Problem, get } from "./api.js";

/** @typedef {"connecting" | "online" | "offline"} Connection */
/** @typedef {(name: string, data: any) => void} Listener */

const NAMES = ["job", "progress", "preview", "result", "change", "workers", "resync"];
const POLL_MS = 1500;
const RETRY_MS = 1000;
const STREAM_RETRY_MS = 10_000;

export const connection = signal(/** @type {Connection} */ ("connecting"));

/** @type {Listener} */
let listener = () => {};
/** @type {EventSource | null} */
let source = null;
let streamRetryAt = 0;
let wasAway = false;

/** @param {Listener} listen */
export function startEvents(listen) {
  listener = listen;
  openStream();
}

/** Try at once, because something changed: a key, a screen that was off. */
export function reconnect() {
  if (source === null || connection.value === "offline") openStream();
}

function openStream() {
  source?.close();
  const stream = new EventSource("events");
  source = stream;
  let isOpened = false;
  stream.onopen = () => {
    // A stream that the browser reopened itself goes on from its last event.
    if (!isOpened || wasAway) arrived(!isOpened);
    isOpened = true;
  };
  for (const name of NAMES) {
    stream.addEventListener(name, (event) => {
      listener(name, JSON.parse(/** @type {MessageEvent} */ (event).data || "{}"));
    });
  }
  stream.onerror = () => {
    if (stream !== source) return;
    if (stream.readyState === EventSource.CLOSED) {
      source = null;
      streamRetryAt = Date.now() + STREAM_RETRY_MS;
      void poll();
    } else {
      void checkReachable();
    }
  };
}

/** @param {boolean} isNew the stream starts anew, so lists must be fetched */
function arrived(isNew) {
  connection.value = "online";
  if (isNew || wasAway) listener("resync", {});
  wasAway = false;
}

function away() {
  connection.value = "offline";
  wasAway = true;
}

/** A reopening stream may be a hiccup: the band appears only when a request fails too. */
async function checkReachable() {
  try {
    await get("healthz");
  } catch (error) {
    if (error instanceof Problem && error.isOffline) away();
  }
}

/** Ask at intervals, until a stream can be had again. */
async function poll() {
  if (source !== null || isPaused) return;
  let pauseMs = POLL_MS;
  try {
    const workers = await get("server/workers");
    const jobs = await get("image/jobs", { limit: 60 });
    if (connection.value !== "online") arrived(true);
    listener("workers", workers);
    listener("jobs", jobs);
  } catch (error) {
    if (error instanceof Problem && error.isOffline) {
      away();
      pauseMs = RETRY_MS;
      streamRetryAt = 0;
    }
  }
  setTimeout(() => {
    if (Date.now() >= streamRetryAt) openStream();
    else void poll();
  }, pauseMs);
}

const HIDDEN_MS = 30_000;

/**
 * A tab that nobody looks at gives its connection back, because a browser has six for a server.
 * @param {() => boolean} isNeeded whether this tab waits for something
 */
export function pauseWhileHidden(isNeeded) {
  setInterval(() => {
    if (!document.hidden || isNeeded()) hiddenSince = Date.now();
    else if (Date.now() - hiddenSince > HIDDEN_MS) pause();
  }, 5000);
}

let hiddenSince = Date.now();
let isPaused = false;

function pause() {
  isPaused = true;
  source?.close();
  source = null;
}

// A phone that slept: what was missed is fetched at once.
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState !== "visible") return;
  if (isPaused) wasAway = true;
  isPaused = false;
  reconnect();
});
