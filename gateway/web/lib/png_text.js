// Reads the text chunks of a PNG (PNG specification, 11.3.3), to restore an image's settings.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const MAX_TEXT_BYTES = 4_000_000;

/**
 * Return the texts of a PNG by keyword; none for another file.
 * @param {Blob} file
 * @returns {Promise<Map<string, string>>}
 */
export async function pngTexts(file) {
  const texts = new Map();
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (SIGNATURE.some((byte, index) => bytes[index] !== byte)) return texts;
  const view = new DataView(bytes.buffer);
  let at = 8;
  while (at + 12 <= bytes.length) {
    const length = view.getUint32(at);
    const type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const data = bytes.subarray(at + 8, at + 8 + length);
    if (["tEXt", "iTXt", "zTXt"].includes(type) && length < MAX_TEXT_BYTES) {
      const pair = await textOf(type, data);
      if (pair) texts.set(pair[0], pair[1]);
    }
    if (type === "IEND") break;
    at += 12 + length;
  }
  return texts;
}

/**
 * @param {string} type
 * @param {Uint8Array} data
 * @returns {Promise<[string, string] | null>}
 */
async function textOf(type, data) {
  const end = data.indexOf(0);
  if (end < 1) return null;
  const latin1 = new TextDecoder("latin1");
  const utf8 = new TextDecoder();
  const keyword = latin1.decode(data.subarray(0, end));
  if (type === "tEXt") return [keyword, latin1.decode(data.subarray(end + 1))];
  if (type === "zTXt") return [keyword, latin1.decode(await inflated(data.subarray(end + 2)))];
  const isCompressed = data[end + 1] === 1;
  const language = data.indexOf(0, end + 3);
  const translated = data.indexOf(0, language + 1);
  const text = data.subarray(translated + 1);
  return [keyword, utf8.decode(isCompressed ? await inflated(text) : text)];
}

/**
 * @param {Uint8Array} data
 * @returns {Promise<ArrayBuffer>}
 */
async function inflated(data) {
  const plain = new Blob([/** @type {BlobPart} */ (data)])
    .stream()
    .pipeThrough(new DecompressionStream("deflate"));
  return new Response(plain).arrayBuffer();
}
