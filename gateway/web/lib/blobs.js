// Keeps the user's own images and masks in IndexedDB, so that a reload loses none of them.

const DATABASE = "sde";
const STORE = "blobs";

/** @type {Map<string, Blob>} */
const memory = new Map();
/** @type {Map<string, string>} */
const urls = new Map();

/** @type {Promise<IDBDatabase | null> | null} */
let opening = null;

/** @returns {Promise<IDBDatabase | null>} */
function open() {
  opening ??= new Promise((resolve) => {
    try {
      const asking = indexedDB.open(DATABASE, 1);
      asking.onupgradeneeded = () => asking.result.createObjectStore(STORE);
      asking.onsuccess = () => resolve(asking.result);
      asking.onerror = () => resolve(null);
    } catch {
      resolve(null); // a private window: the blobs live as long as the page
    }
  });
  return opening;
}

/**
 * @template T
 * @param {IDBTransactionMode} mode
 * @param {(store: IDBObjectStore) => IDBRequest<T>} act
 * @returns {Promise<T | undefined>}
 */
async function inStore(mode, act) {
  const database = await open();
  if (database === null) return undefined;
  return new Promise((resolve) => {
    const asking = act(database.transaction(STORE, mode).objectStore(STORE));
    asking.onsuccess = () => resolve(asking.result);
    asking.onerror = () => resolve(undefined);
  });
}

/**
 * Store a blob and return its id.
 * @param {Blob} blob
 * @returns {Promise<string>}
 */
export async function putBlob(blob) {
  const id = `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 10)}`;
  memory.set(id, blob);
  await inStore("readwrite", (store) => store.put(blob, id));
  return id;
}

/**
 * @param {string} id
 * @returns {Promise<Blob | null>}
 */
export async function getBlob(id) {
  const kept = memory.get(id) ?? (await inStore("readonly", (store) => store.get(id))) ?? null;
  if (kept) memory.set(id, kept);
  return kept;
}

/**
 * The blob: address of a stored blob, or null when it is gone.
 * @param {string} id
 * @returns {Promise<string | null>}
 */
export async function blobUrl(id) {
  const known = urls.get(id);
  if (known) return known;
  const blob = await getBlob(id);
  if (blob === null) return null;
  const url = URL.createObjectURL(blob);
  urls.set(id, url);
  return url;
}

/**
 * Remove every blob that is not in use.
 * @param {Set<string>} used
 */
export async function sweepBlobs(used) {
  const ids = (await inStore("readonly", (store) => store.getAllKeys())) ?? [];
  for (const id of ids) {
    if (!used.has(String(id))) await inStore("readwrite", (store) => store.delete(id));
  }
}

/**
 * @param {Blob} blob
 * @returns {Promise<string>} base64 without a data: prefix
 */
export async function base64Of(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = "";
  for (let start = 0; start < bytes.length; start += 0x8000) {
    text += String.fromCharCode(...bytes.subarray(start, start + 0x8000));
  }
  return btoa(text);
}
