// Runs what the tests ask of the JavaScript clients of the OpenAI images API, and prints JSON.
// Usage: node run.mjs CASE BASE_URL KEY. Standard input is {"image", "mask"}: PNGs as base64.
import { readFileSync } from "node:fs";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateImage } from "ai";
import OpenAI, { toFile } from "openai";

globalThis.AI_SDK_LOG_WARNINGS = false;

const [name, baseURL, apiKey] = process.argv.slice(2);
const input = JSON.parse(readFileSync(0, "utf8"));
const files = Object.fromEntries(
  Object.entries(input).map(([key, text]) => [key, Buffer.from(text, "base64")]),
);
const small = { size: "64x64", seed: 7, num_inference_steps: 4 };
const sdk = new OpenAI({ baseURL, apiKey, maxRetries: 0 });

const file = (key) => toFile(files[key], `${key}.png`, { type: "image/png" });

const refusal = async (call) => {
  try {
    await call();
  } catch (error) {
    const { status, statusCode, code, param, message } = error;
    return { status: status ?? statusCode, code, param, message };
  }
  throw new Error("the request was not refused");
};

const sizes = (result) => result.images.map((image) => image.base64);

const vercel = {
  openai: () => createOpenAI({ baseURL, apiKey }).image("demo"),
  compatible: () => createOpenAICompatible({ name: "own", baseURL, apiKey }).imageModel("demo"),
};

const ask = (kind, options) =>
  generateImage({ model: vercel[kind](), size: "64x64", maxRetries: 0, ...options });

const stream = async (options) => {
  const events = [];
  const asked = { ...small, num_inference_steps: 8, prompt: "a cat", ...options };
  for await (const event of await sdk.images.generate({ ...asked, stream: true })) {
    events.push({ type: event.type, image: event.b64_json });
  }
  return events;
};

const cases = {
  "openai models": async () => {
    const ids = [];
    for await (const model of sdk.models.list()) ids.push(model.id);
    return { ids, one: (await sdk.models.retrieve("demo")).id };
  },
  "openai generate": async () => {
    const reply = await sdk.images.generate({ ...small, prompt: "a cat", n: 2, model: "demo" });
    return reply.data.map((each) => each.b64_json);
  },
  "openai url": async () => {
    const asked = { ...small, prompt: "a cat", response_format: "url" };
    const [{ url }] = (await sdk.images.generate(asked)).data;
    return [Buffer.from(await (await fetch(url)).arrayBuffer()).toString("base64")];
  },
  "openai edit": async () => {
    const images = { image: await file("image"), mask: await file("mask") };
    const reply = await sdk.images.edit({ ...small, ...images, prompt: "a cat" });
    return reply.data.map((each) => each.b64_json);
  },
  "openai variation": async () => {
    const reply = await sdk.images.createVariation({ ...small, image: await file("image") });
    return reply.data.map((each) => each.b64_json);
  },
  "openai stream": () => stream({ partial_images: 2 }),
  "openai refusal": () => refusal(() => sdk.images.generate({ prompt: "a", size: "65x64" })),
  "openai wrong key": () =>
    refusal(() => new OpenAI({ baseURL, apiKey: "wrong", maxRetries: 0 }).models.list()),
  "openai unknown model": () => refusal(() => sdk.images.generate({ prompt: "a", model: "org/x" })),
  "ai openai generate": async () => sizes(await ask("openai", { prompt: "a cat", n: 3, seed: 7 })),
  "ai compatible generate": async () => sizes(await ask("compatible", { prompt: "a cat", n: 2 })),
  "ai openai edit": async () =>
    sizes(await ask("openai", { prompt: { text: "a cat", images: [files.image], mask: files.mask } })),
  "ai compatible edit": async () =>
    sizes(await ask("compatible", { prompt: { text: "a cat", images: [files.image] } })),
  "ai refusal": () => refusal(() => ask("compatible", { prompt: "a cat", size: "65x64" })),
};

console.log(JSON.stringify(await cases[name]()));
