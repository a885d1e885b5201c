// Draws an image again and compares the pixels: the proof that a record tells the truth.
import { signal } from "../vendor/preact.js";
import { base64Of } from "../lib/blobs.js";
import { get, post, send } from "../lib/api.js";
import { stored } from "../lib/storage.js";
import { valueText } from "../lib/format.js";
import { isActive } from "./jobs.js";
import { recordOf } from "./records.js";

/** @typedef {{state: "running" | "identical" | "differs" | "failed", reason: string, when: number}} Proof */

/** What is known of images by name; it outlives reloads. */
export const proofs = stored("proofs", /** @type {Record<string, Proof>} */ ({}), (kept) =>
  Object.fromEntries(Object.entries(kept).filter(([, proof]) => proof.state !== "running")),
);
export const isVerifying = signal(false);

/** Keys that describe one run; they may differ between two runs of the same request. */
const VOLATILE = new Set([
  ...["uuid", "created_time", "started_time", "ended_time", "seconds", "sequence", "submission"],
  ...["attempt", "peak_memory_bytes", "pixels_sha256", "steps_log", "request", "step", "steps"],
  ...["image_index", "num_images", "num_images_per_prompt", "errors", "state", "step_log", "format"],
  ...["crc32", "data", "source", "owner", "batch_id", "client_name", "star", "trashed_time"],
]);

/**
 * @param {string} name
 * @param {Proof} proof
 */
function note(name, proof) {
  const entries = Object.entries({ ...proofs.value, [name]: proof });
  proofs.value = Object.fromEntries(entries.slice(-300));
}

/** @param {string} name */
export async function verify(name) {
  isVerifying.value = true;
  note(name, { state: "running", reason: "", when: Date.now() });
  try {
    const record = await recordOf(name);
    const repeat = await runAgain(record);
    note(name, judge(record, repeat));
  } catch (error) {
    const reason = /** @type {Error} */ (error).message;
    note(name, { state: "failed", reason, when: Date.now() });
  } finally {
    isVerifying.value = false;
  }
}

/** @param {Record<string, any>} record @param {Record<string, any>} repeat @returns {Proof} */
function judge(record, repeat) {
  const when = Date.now();
  if (repeat.pixels_sha256 && repeat.pixels_sha256 === record.pixels_sha256) {
    return { state: "identical", reason: "", when };
  }
  const changed = differences(record, repeat).slice(0, 4);
  const reason = changed.length
    ? `Since then this changed: ${changed.map(([key, then, now]) => `${key} ${valueText(then)} → ${valueText(now)}`).join("; ")}.`
    : "Nothing in the records differs. The computation itself is not repeatable here.";
  return { state: "differs", reason, when };
}

/**
 * The settings that differ between two records, without those of one run alone.
 * @param {Record<string, any>} one
 * @param {Record<string, any>} other
 * @returns {[string, any, any][]}
 */
export function differences(one, other) {
  const keys = new Set([...Object.keys(one), ...Object.keys(other)].filter((key) => !VOLATILE.has(key)));
  return [...keys]
    .filter((key) => JSON.stringify(one[key]) !== JSON.stringify(other[key]))
    .map((key) => [key, one[key], other[key]]);
}

/**
 * Run the request of a record again, for this image alone, and remove the repetition.
 * @param {Record<string, any>} record
 * @returns {Promise<Record<string, any>>}
 */
async function runAgain(record) {
  const request = {
    ...structuredClone(record.request ?? {}), // the images are put into it
    prompt: record.prompt,
    negative_prompt: record.negative_prompt || undefined,
    seed: record.seed,
    num_images_per_prompt: 1,
    queue: true,
  };
  await putImages(request, record.uuid);
  const { generation_uuid: uuid } = await post("image/generate", request);
  await ended(uuid);
  const [repeat] = await get("image/generate", { generation_uuid: uuid, data: false });
  await post("image/delete", { images: [uuid] }).catch(() => {});
  if (repeat.state !== "succeeded") throw new Error(repeat.errors.join(" ") || `The repetition was ${repeat.state}.`);
  return repeat;
}

/** Put input images back in, whose digests the record has. @param {any} part @param {string} uuid */
async function putImages(part, uuid) {
  for (const [key, value] of Object.entries(part)) {
    if (typeof value === "string" && value.startsWith("sha256:")) {
      const reply = await send("GET", `image/jobs/${uuid}/inputs/${value.slice(7)}`);
      part[key] = await base64Of(await reply.blob());
    } else if (value !== null && typeof value === "object") {
      await putImages(value, uuid);
    }
  }
}

/** @param {string} uuid */
async function ended(uuid) {
  for (;;) {
    const job = await get(`image/jobs/${uuid}`, { wait: 20 });
    if (!isActive(job.state)) return;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}
