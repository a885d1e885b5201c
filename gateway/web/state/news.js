// Takes the events of the service in: each changes the state of one thing.
import { pauseWhileHidden, startEvents } from "../lib/event_stream.js";
import { selection, select } from "./collection.js";
import { flushOutbox } from "./drawing.js";
import { loadJobs, ownActiveJobs, takeJobList, updateJob } from "./jobs.js";
import { isDescribed, loadFields, loadModels } from "./models.js";
import { loadNewest, patchItems, resultsChanged } from "./results.js";
import { diskTrouble, takeWorkerList } from "./workers.js";
import { get } from "../lib/api.js";

export function followNews() {
  startEvents(take);
  pauseWhileHidden(() => ownActiveJobs.value.length > 0);
  setInterval(() => diskTrouble.value !== null && void loadStorage(), STORAGE_MS);
}

const DESCRIBE_TRIES = 5;
const STORAGE_MS = 5000;

let polled = "";
let described = "";

/** @param {string} name @param {any} data */
function take(name, data) {
  switch (name) {
    case "job":
      updateJob(data);
      break;
    case "progress":
      updateJob({ ...data, state: data.state ?? "running" });
      break;
    case "preview":
      updateJob({ uuid: data.uuid, preview: `${data.url.replace(/^\//, "")}#${Date.now()}` });
      break;
    case "result":
      updateJob({ uuid: data.uuid, state: data.state });
      resultsChanged();
      break;
    case "change":
      takeChange(data);
      break;
    case "workers":
      takeWorkers(data);
      break;
    case "jobs":
      takePolledJobs(data);
      break;
    case "resync":
      void resync();
      break;
  }
}

/** @param {{images: string[], star?: boolean, trash?: boolean, deleted?: boolean}} change */
function takeChange(change) {
  if (change.star !== undefined) patchItems(change.images, { star: change.star });
  if (change.trash !== undefined || change.deleted) {
    select([...selection.value].filter((name) => !change.images.includes(name)));
    resultsChanged();
  }
}

/** @param {any[]} list */
function takeWorkers(list) {
  takeWorkerList(list);
  // A model that has loaded, or another default, changes what the form may offer.
  const now = list.map((each) => `${each.boot_id} ${each.loaded}`).join();
  if (now !== described) {
    described = now;
    void describe(DESCRIBE_TRIES);
  }
}

/** A worker that has just loaded may need a moment until it has described itself. @param {number} tries */
async function describe(tries) {
  await loadModels();
  if (!isDescribed.value && tries > 1) setTimeout(() => void describe(tries - 1), 2000);
}

/** Without a stream nobody says when a result is there. @param {any[]} list */
function takePolledJobs(list) {
  takeJobList(list);
  for (const { uuid, state } of list) {
    if (state === "running") updateJob({ uuid, preview: `image/jobs/${uuid}/preview#${Date.now()}` });
  }
  const now = list.map((job) => `${job.uuid} ${job.state}`).join();
  if (now !== polled) resultsChanged();
  polled = now;
}

/** Fetch everything that may have been missed. */
async function resync() {
  void loadNewest({ isMissed: true }).then(resultsChanged);
  void loadFields();
  const asked = await Promise.allSettled([get("server/workers"), loadJobs(), loadStorage()]);
  if (asked[0].status === "fulfilled") takeWorkers(asked[0].value);
  await flushOutbox();
}

async function loadStorage() {
  diskTrouble.value = (await get("server/storage")).trouble;
}
