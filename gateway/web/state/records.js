// The full records of images, fetched when a view shows them or a button uses their settings.
import { get } from "../lib/api.js";

/** @typedef {Record<string, any>} ImageRecord */

/** @type {Map<string, Promise<ImageRecord[]>>} */
const byJob = new Map();
const MAX_KEPT = 200;

/** @param {string} name UUID or UUID-N @returns {{uuid: string, index: number}} */
export function parseName(name) {
  const number = name.length > 36 ? Number(name.slice(37)) : 1;
  return { uuid: name.slice(0, 36), index: number - 1 };
}

/**
 * The record of an image, without its pixels. Raises when there is none.
 * @param {string} name
 * @returns {Promise<ImageRecord>}
 */
export async function recordOf(name) {
  const { uuid, index } = parseName(name);
  let asking = byJob.get(uuid);
  if (asking === undefined) {
    asking = get("image/generate", { generation_uuid: uuid, data: false });
    byJob.set(uuid, asking);
    asking.catch(() => byJob.delete(uuid));
    if (byJob.size > MAX_KEPT) byJob.delete(byJob.keys().next().value ?? "");
  }
  const records = await asking;
  if (records.length === 0) byJob.delete(uuid);
  const record = records.find((each) => each.image_index === index);
  if (record === undefined) throw new Error("This image does not exist, or it was deleted.");
  return record;
}

/**
 * The record of how an image was drawn: an upscaled one has the settings of its source.
 * @param {string} name
 * @returns {Promise<ImageRecord>}
 */
export async function drawnRecordOf(name) {
  const record = await recordOf(name);
  if (!record.upscale || !record.source) return record;
  return drawnRecordOf(`${record.source.uuid}-${record.source.image_index + 1}`).catch(() => record);
}
