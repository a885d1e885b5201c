// Acts on stored images: star, delete with Undo, restore, zip, download. The selection is here too.
import { signal } from "../vendor/preact.js";
import { imageUrl, post, send } from "../lib/api.js";
import { counted } from "../lib/format.js";
import { announce, notify, notifyError } from "./notices.js";
import { dropItems, patchItems, resultsChanged } from "./results.js";

export const selection = signal(/** @type {Set<string>} */ (new Set()));

/** @param {Iterable<string>} names */
export function select(names) {
  selection.value = new Set(names);
}

/** @param {string} name */
export function toggleSelected(name) {
  const next = new Set(selection.value);
  if (!next.delete(name)) next.add(name);
  selection.value = next;
}

/**
 * @param {string[]} images
 * @param {boolean} star
 */
export async function starImages(images, star) {
  patchItems(images, { star });
  announce(star ? "Starred." : "No longer starred.");
  try {
    await post("image/star", { images, star });
  } catch (error) {
    patchItems(images, { star: !star });
    notifyError(error);
  }
}

/** Delete images, with an Undo as long as they are in the trash. @param {string[]} images */
export async function trashImages(images) {
  try {
    await post("image/trash", { images });
    dropItems(images);
    select([...selection.value].filter((name) => !images.includes(name)));
    resultsChanged();
    notify(`${counted(images.length, "image")} deleted.`, {
      act: { label: "Undo", act: () => void restoreImages(images) },
    });
  } catch (error) {
    notifyError(error);
  }
}

/** @param {string[]} images */
export async function restoreImages(images) {
  try {
    await post("image/restore", { images });
    resultsChanged();
    announce(`${counted(images.length, "image")} restored.`);
  } catch (error) {
    notifyError(error);
  }
}

/** Delete images for good; nothing brings them back. @param {string[]} images */
export async function deleteImages(images) {
  try {
    await post("image/delete", { images });
    resultsChanged();
    notify(`${counted(images.length, "image")} deleted for good.`);
  } catch (error) {
    notifyError(error);
  }
}

/** @param {string[]} images */
export async function downloadZip(images) {
  try {
    notify(`Packing ${counted(images.length, "image")} …`);
    const reply = await send("POST", "image/zip", { body: { images } });
    saveBlob(await reply.blob(), `images-${new Date().toISOString().slice(0, 10)}.zip`);
  } catch (error) {
    notifyError(error);
  }
}

/** @param {string} name */
export function downloadImage(name) {
  const link = document.createElement("a");
  link.href = imageUrl(name, { download: true });
  link.download = "";
  link.click();
}

/**
 * @param {Blob} blob
 * @param {string} fileName
 */
export function saveBlob(blob, fileName) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = fileName;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
