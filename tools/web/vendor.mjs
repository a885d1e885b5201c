// Bundles the page's libraries into gateway/web/vendor/, with their licences and checksums.
// Run by `make vendor` after `npm ci`; the outputs are committed, so that users need no Node.js.
import { createHash } from "node:crypto";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, "../../gateway/web/vendor");

/** @type {Record<string, string[]>} the packages in each bundle of entries/ */
const BUNDLES = {
  "preact.js": ["preact", "htm", "@preact/signals", "@preact/signals-core"],
  "tinykeys.js": ["tinykeys"],
  "icons.js": ["lucide"],
};

const read = (name) => readFile(join(here, "node_modules", name), "utf8");

const licenceOf = async (name) => {
  const files = await readdir(join(here, "node_modules", name));
  const file = files.find((each) => /^licen[cs]e/i.test(each));
  if (file === undefined) throw new Error(`${name} has no licence file`);
  return read(join(name, file));
};

await mkdir(target, { recursive: true });
for (const file of await readdir(target)) {
  if (!file.endsWith(".d.ts")) await rm(join(target, file));
}
await build({
  entryPoints: Object.keys(BUNDLES).map((file) => join(here, "entries", file)),
  outdir: target,
  bundle: true,
  format: "esm",
  minify: true,
  target: "es2022",
  legalComments: "none",
});

const checksums = {};
const licences = [];
for (const [file, packages] of Object.entries(BUNDLES)) {
  const bytes = await readFile(join(target, file));
  const versions = {};
  for (const name of packages) {
    const { version, license } = JSON.parse(await read(join(name, "package.json")));
    versions[name] = version;
    licences.push(`${name} ${version} (${license})\n\n${(await licenceOf(name)).trim()}\n`);
  }
  checksums[file] = { sha256: createHash("sha256").update(bytes).digest("hex"), versions };
}
await writeFile(join(target, "checksums.json"), `${JSON.stringify(checksums, null, 2)}\n`);
await writeFile(join(target, "LICENSES.txt"), licences.join(`\n${"-".repeat(80)}\n\n`));
