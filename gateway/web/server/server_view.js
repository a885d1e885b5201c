// The view Server: workers, models, queue, disk and versions. It changes only what is loaded.
import { html, useEffect, useState } from "../vendor/preact.js";
import { get, post } from "../lib/api.js";
import { bytes, counted, seconds } from "../lib/format.js";
import { activeJobs } from "../state/jobs.js";
import { capabilities, loadModels } from "../state/models.js";
import { notify, notifyError } from "../state/notices.js";
import { session } from "../state/session.js";
import { workers } from "../state/workers.js";

const REFRESH_MS = 5000;

export function ServerView() {
  const [storage, setStorage] = useState(/** @type {any} */ (null));
  useEffect(() => {
    const refresh = () => {
      get("server/storage").then(setStorage, () => {});
    };
    refresh();
    const timer = setInterval(refresh, REFRESH_MS);
    void loadModels();
    return () => clearInterval(timer);
  }, []);
  return html`<div class="page-view"><div class="page-body">
    <div class="page-head"><h1>Server</h1></div>
    <div class="panels">
      ${workers.value.map((worker) => html`<${WorkerPanel} key=${worker.worker} worker=${worker} />`)}
      ${workers.value.length === 0 && html`<section class="panel"><h2>No worker</h2><p class="muted">None has answered yet.</p></section>`}
      <${StoragePanel} storage=${storage} />
      <${QueuePanel} />
    </div>
    <${Models} />
  </div></div>`;
}

/** @param {{rows: [string, any][]}} props */
function Rows({ rows }) {
  return html`<dl class="fact-list">
    ${rows.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([label, value]) => html`<div key=${label}><dt>${label}</dt><dd>${value}</dd></div>`)}
  </dl>`;
}

/** @param {{worker: import("../state/workers.js").Worker}} props */
function WorkerPanel({ worker }) {
  const { state, versions } = worker;
  return html`<section class="panel">
    <h2 class="row"><span class=${`status-dot ${state}`} aria-hidden="true"></span>${worker.worker}<span class="muted small">${state}</span></h2>
    ${worker.last_error && html`<p class="badge bad"><span>${worker.last_error}</span></p>`}
    ${worker.trouble && html`<p class="badge bad"><span>${worker.trouble}</span></p>`}
    <${Rows} rows=${[
      ["Model", worker.loaded ?? (state === "loading" ? `loading ${worker.model}` : "none in memory")],
      ["Device", worker.device && `${worker.device}${worker.dtype ? `, ${worker.dtype}` : ""}`],
      ["Size", worker.machine_size],
      ["GPU memory", worker.gpu_memory_total_bytes && `${bytes(worker.gpu_memory_bytes ?? 0)} of ${bytes(worker.gpu_memory_total_bytes)}`],
      ["Memory", worker.memory_bytes && bytes(worker.memory_bytes)],
      ["Restarts", worker.restarts || null],
      ["Now", worker.steps ? `step ${worker.step} of ${worker.steps}` : null],
      ["A step", worker.step_s && seconds(worker.step_s)],
      ["Versions", versions && Object.entries(versions).map(([name, version]) => `${name} ${version}`).join(", ")],
    ]} />
  </section>`;
}

/** @param {{storage: any}} props */
function StoragePanel({ storage }) {
  if (storage === null) return html`<section class="panel"><h2>Disk</h2></section>`;
  return html`<section class="panel"><h2>Disk</h2>
    ${storage.trouble && html`<p class="badge bad"><span>${storage.trouble}</span></p>`}
    <${Rows} rows=${[
      ["Results", storage.results.toLocaleString("en")],
      ["In use", bytes(storage.size_bytes)],
      ["Free", bytes(storage.free_bytes)],
      ["Damaged", storage.damaged_lines ? counted(storage.damaged_lines, "line") : "none"],
    ]} /></section>`;
}

function QueuePanel() {
  const running = activeJobs.value.filter((job) => job.state === "running").length;
  return html`<section class="panel"><h2>Queue</h2>
    <${Rows} rows=${[
      ["Running", String(running)],
      ["Waiting", String(activeJobs.value.length - running)],
      ["Signed in", session.value.key ?? (session.value.key_required ? "no" : "no key needed")],
    ]} /></section>`;
}

function Models() {
  const entries = Object.entries(capabilities.value.models);
  const isAdmin = session.value.scopes.length === 0 || session.value.scopes.includes("admin");
  /** @param {string} name @param {"load" | "unload"} act */
  const command = async (name, act) => {
    try {
      await post(`server/models/${encodeURIComponent(name)}/${act}`);
      notify(act === "load" ? `${name} is being loaded.` : `${name} has left the memory.`);
    } catch (error) {
      notifyError(error);
    }
  };
  return html`<section class="panel"><h2>Models</h2>
    <div class="table-scroll" tabindex="0" role="region" aria-label="Models"><table class="table">
      <thead><tr><th scope="col">Name</th><th scope="col">Makes</th><th scope="col">Pipeline</th><th scope="col">In memory</th></tr></thead>
      <tbody>${entries.map(([name, model]) => html`<tr key=${name}>
        <th scope="row">${name}${name === capabilities.value.default ? html` <span class="muted small">default</span>` : ""}</th>
        <td>${model.error ? html`<span class="field-error">${model.error}</span>` : (model.modes ?? []).map(modeText).join(", ")}</td>
        <td class="muted">${(model.pipeline ?? "").replace(/Pipeline$/, "")}</td>
        <td>${!model.error && (model.loaded
          ? html`<button type="button" disabled=${!isAdmin} onClick=${() => void command(name, "unload")} aria-label=${`Unload ${name}`}>Unload</button>`
          : html`<button type="button" disabled=${!isAdmin} onClick=${() => void command(name, "load")} aria-label=${`Load ${name}`}>Load</button>`)}</td>
      </tr>`)}</tbody></table></div>
    ${entries.length === 0 && html`<p class="muted">No worker has described its models yet.</p>`}
  </section>`;
}

/** @param {string} mode */
function modeText(mode) {
  const names = /** @type {Record<string, string>} */ ({ txt2img: "text to image", img2img: "image to image", inpaint: "inpainting" });
  return names[mode] ?? mode;
}
