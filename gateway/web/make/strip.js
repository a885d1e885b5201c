// The right strip: the queue as cards on top, the newest images below.
import { html, signal, useEffect, useRef } from "../vendor/preact.js";
import { imageUrl } from "../lib/api.js";
import { dropOutgoing, outbox, shownImage } from "../state/drawing.js";
import { activeJobs, cancelJob, isOwn, promptOf, sentJobs } from "../state/jobs.js";
import { newest, unseen } from "../state/results.js";
import { IconButton } from "../ui/controls.js";
import { counted, shortened } from "../lib/format.js";

/** How many cards are shown until the queue is opened. */
const SHOWN = 5;
const isQueueOpen = signal(false);

export function Strip() {
  const strip = useRef(/** @type {HTMLElement | null} */ (null));
  const sent = sentJobs.value[0]?.uuid;
  // What was sent just now stands at the top.
  useEffect(() => void strip.current?.scrollTo(0, 0), [sent]);
  return html`<aside class="strip" ref=${strip} aria-label="Queue and newest images">
    <${Queue} />
    <ul class="newest" aria-label="Newest images">
      ${newest.value.map(
        (item) => html`<li key=${item.name}><button type="button"
          class=${unseen.value.has(item.name) ? "is-new" : ""}
          aria-current=${shownImage.value === item.name ? "true" : undefined}
          aria-label=${`${unseen.value.has(item.name) ? "New: " : ""}Show: ${item.prompt}`}
          onClick=${() => (shownImage.value = item.name)}>
          <img src=${imageUrl(item.name, { px: 128 })} alt="" loading="lazy" decoding="async" /></button></li>`,
      )}
    </ul>
  </aside>`;
}

function Queue() {
  const list = activeJobs.value;
  if (list.length === 0 && outbox.value.length === 0) return null;
  const cards = list.map((job, index) => ({ job, index }));
  const shown = isQueueOpen.value ? cards : cards.filter(({ job, index }) => index < 2 || isOwn(job.uuid)).slice(0, SHOWN);
  const hidden = list.length - shown.length;
  return html`<ol class="queue" aria-label="Queue">
    ${shown.map(({ job, index }) => html`<${Card} key=${job.uuid} job=${job} place=${index} />`)}
    ${(hidden > 0 || isQueueOpen.value) && html`<li><button type="button" class="link small" aria-expanded=${String(isQueueOpen.value)}
      onClick=${() => (isQueueOpen.value = !isQueueOpen.value)}>${isQueueOpen.value ? "Show fewer" : `and ${counted(hidden, "more job")}`}</button></li>`}
    ${outbox.value.map(
      (each) => html`<li key=${each.key} class="card"><div class="card-head"><span>not sent yet</span>
        <${IconButton} icon="X" label="Do not send it" class="tiny" onClick=${() => dropOutgoing(each.key)} /></div>
        <p class="clip2">${shortened(each.title, 80)}</p></li>`,
    )}
  </ol>`;
}

/** @param {{job: import("../state/jobs.js").Job, place: number}} props */
function Card({ job, place }) {
  const isRunning = job.state === "running";
  const own = isOwn(job.uuid);
  const who = own ? "" : (job.client_name ?? job.owner ?? "");
  return html`<li class=${`card ${isRunning ? "is-running" : ""} ${own ? "is-own" : ""}`}>
    <div class="card-head">
      <button type="button" class="link small" onClick=${() => (shownImage.value = null)} disabled=${!own}>
        ${isRunning ? `${job.step ?? 0}/${job.steps ?? "?"}` : `#${place + 1}`}</button>
      <span class="clip small">${who}</span>
      ${own && html`<${IconButton} icon="X" label=${`Cancel: ${shortened(promptOf(job), 60)}`} class="tiny" onClick=${() => void cancelJob(job.uuid)} />`}
    </div>
    ${isRunning && html`<progress max=${job.steps || 1} value=${job.step ?? 0} aria-label=${`Progress of ${shortened(promptOf(job), 40)}`}></progress>`}
    <p class="clip2">${shortened(promptOf(job), 80) || (own ? "" : "someone else's job")}</p>
  </li>`;
}
