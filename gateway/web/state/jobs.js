// The jobs of the service as the event stream tells them, and which of them this browser sent.
import { batch, computed, signal } from "../vendor/preact.js";
import { get, remove } from "../lib/api.js";
import { chime } from "../lib/chime.js";
import { stored } from "../lib/storage.js";
import { announce, notifyError } from "./notices.js";

/**
 * @typedef {{uuid: string, state: string, position: number | null, step: number | null,
 *   steps: number | null, eta_s: number | null, created_time: string, started_time: string | null,
 *   ended_time: string | null, errors: string[], prompt?: string, client_name?: string | null,
 *   owner?: string | null, preview?: string, seenAt?: number}} Job
 * @typedef {{uuid: string, prompt: string}} Sent
 */

const MAX_ENDED = 60;
const MAX_SENT = 200;

/** @type {import("../vendor/preact.js").Signal<Map<string, Job>>} */
export const jobs = signal(new Map());

/** The jobs that this browser sent, newest first. */
export const sentJobs = stored("sent", /** @type {Sent[]} */ ([]));

/** Whether a sound says that one's own job has ended. */
export const isSoundOn = stored("sound", false);

/** Jobs that are queued or running, in the order of the queue. */
export const activeJobs = computed(() =>
  [...jobs.value.values()]
    .filter((job) => isActive(job.state))
    .sort((one, other) => rank(one) - rank(other) || one.created_time.localeCompare(other.created_time)),
);

export const ownActiveJobs = computed(() => activeJobs.value.filter((job) => isOwn(job.uuid)));

/** The job to watch: one's own that runs, else one's own that is next. */
export const watchedJob = computed(() => ownActiveJobs.value[0] ?? null);

/** Whether a job in this state waits or runs. @param {string} state */
export function isActive(state) {
  return state === "running" || state === "queued";
}

/** @param {Job} job */
function rank(job) {
  return job.state === "running" ? -1 : (job.position ?? 0);
}

/** @param {string} uuid */
export function isOwn(uuid) {
  return sentJobs.value.some((each) => each.uuid === uuid);
}

/** @param {Job} job */
export function promptOf(job) {
  return job.prompt ?? sentJobs.value.find((each) => each.uuid === job.uuid)?.prompt ?? "";
}

/**
 * A job was accepted for this browser.
 * @param {string} uuid
 * @param {string} prompt
 */
export function jobAccepted(uuid, prompt) {
  batch(() => {
    sentJobs.value = [{ uuid, prompt }, ...sentJobs.value].slice(0, MAX_SENT);
    if (!jobs.value.has(uuid)) {
      updateJob({ uuid, prompt, state: "queued", created_time: new Date().toISOString() });
    }
  });
}

/**
 * Take news of a job in.
 * @param {Partial<Job> & {uuid: string}} news
 */
export function updateJob(news) {
  const known = jobs.value.get(news.uuid);
  if (known && !isActive(known.state) && isActive(news.state ?? known.state)) return;
  const fields = Object.fromEntries(Object.entries(news).filter(([, value]) => value !== undefined));
  /** @type {Job} */
  const job = { ...BLANK, ...known, ...fields, seenAt: Date.now() };
  const next = new Map(jobs.value);
  next.set(job.uuid, job);
  forgetOldest(next);
  jobs.value = next;
  if (isOwn(job.uuid)) sayProgress(known, job);
}

/** @type {Job} */
const BLANK = {
  uuid: "",
  state: "queued",
  position: null,
  step: null,
  steps: null,
  eta_s: null,
  created_time: "",
  started_time: null,
  ended_time: null,
  errors: [],
};

/** @param {Map<string, Job>} table */
function forgetOldest(table) {
  const ended = [...table.values()].filter((job) => !isActive(job.state));
  for (const job of ended.slice(0, Math.max(0, ended.length - MAX_ENDED))) table.delete(job.uuid);
}

/**
 * The live region says start, half, end and error, no more.
 * @param {Job | undefined} before
 * @param {Job} now
 */
function sayProgress(before, now) {
  if (before?.state !== now.state) {
    if (isSoundOn.value && before && ["succeeded", "failed"].includes(now.state)) chime(now.state === "succeeded");
    if (now.state === "running") announce("Your image is being generated.");
    if (now.state === "succeeded") announce("Your image is ready.");
    if (now.state === "canceled") announce("The job is canceled.");
    if (now.state === "failed") announce(`The job failed. ${now.errors.join(" ")}`);
    return;
  }
  const half = (now.steps ?? 0) / 2;
  if (half >= 2 && (before?.step ?? 0) < half && (now.step ?? 0) >= half) announce("Half done.");
}

/**
 * Replace the table by a list of the service: what was missed is there, what is gone leaves.
 * @param {Job[]} list
 */
export function takeJobList(list) {
  const listed = new Set(list.map((job) => job.uuid));
  batch(() => {
    for (const job of [...list].reverse()) updateJob(job);
    for (const job of activeJobs.value) {
      if (!listed.has(job.uuid) && job.created_time < (list.at(-1)?.created_time ?? "")) void recheck(job);
    }
  });
}

/** @param {Job} job */
async function recheck(job) {
  try {
    updateJob(await get(`image/jobs/${job.uuid}`));
  } catch {
    const next = new Map(jobs.value);
    next.delete(job.uuid);
    jobs.value = next;
  }
}

export async function loadJobs() {
  takeJobList(await get("image/jobs", { limit: 100 }));
  for (const job of ownActiveJobs.value) void recheck(job);
}

/** @param {string} uuid */
export async function cancelJob(uuid) {
  try {
    await remove(`image/jobs/${uuid}`);
    updateJob(await get(`image/jobs/${uuid}`));
  } catch (error) {
    notifyError(error);
  }
}
