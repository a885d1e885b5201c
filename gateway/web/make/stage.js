// The middle: one's own running job with its preview, a stored image, an error, or where to begin.
import { html, useEffect, useRef, useState } from "../vendor/preact.js";
import { imageUrl } from "../lib/api.js";
import { counted, seconds } from "../lib/format.js";
import { shownImage } from "../state/drawing.js";
import { activeJobs, cancelJob, jobs, promptOf, sentJobs, watchedJob } from "../state/jobs.js";
import { isNewestLoaded, itemNamed, markSeen, newest } from "../state/results.js";
import { ImageActions, imageKeys } from "../picture/actions.js";
import { Icon } from "../ui/icon.js";
import { bindKeys } from "../ui/shortcuts.js";
import { EmptyStage } from "./empty.js";
import { FailedJob, dismissedFailure } from "./failed_job.js";

export function Stage() {
  const shown = shownImage.value;
  const job = watchedJob.value;
  if (shown === null && job !== null) return html`<${RunningJob} job=${job} />`;
  const failed = shown === null ? lastFailure() : null;
  if (failed !== null) return html`<${FailedJob} job=${failed} />`;
  const name = shown ?? newest.value[0]?.name ?? null;
  if (name === null) return isNewestLoaded.value ? html`<${EmptyStage} />` : html`<div class="stage"></div>`;
  return html`<${StoredImage} name=${name} />`;
}

/** One's own last job, where it failed. */
function lastFailure() {
  const last = sentJobs.value[0];
  const job = last && jobs.value.get(last.uuid);
  return job?.state === "failed" && job.uuid !== dismissedFailure.value ? job : null;
}

/** @param {{job: import("../state/jobs.js").Job}} props */
function RunningJob({ job }) {
  const { step, steps, state } = job;
  const before = activeJobs.value.findIndex((each) => each.uuid === job.uuid);
  const isRunning = state === "running";
  return html`<section class="stage" aria-label="Your job">
    <div class="canvas">
      ${job.preview && isRunning
        ? html`<${Preview} src=${job.preview} alt=${`Preview: ${promptOf(job)}`} />`
        : html`<div class="canvas-wait"><span class="shimmer"></span></div>`}
    </div>
    <div class="progress-row">
      <progress max=${steps || 1} value=${isRunning ? (step ?? 0) : 0} aria-label="Progress of your image"></progress>
      <p class="progress-text">
        ${isRunning
          ? html`<span>Step ${step ?? 0} of ${steps ?? "?"}</span><${TimeLeft} job=${job} />`
          : html`<span>${waitText(before)}</span><${TimeLeft} job=${job} />`}
        <span class="spacer"></span>
        <button type="button" onClick=${() => void cancelJob(job.uuid)}>
          <${Icon} name="X" size=${16} /> ${job.state === "running" ? "Cancel" : "Leave the queue"}</button>
      </p>
      <p class="prompt-line muted">${promptOf(job)}</p>
    </div>
  </section>`;
}

/** The last preview that came stays until the next one is there. @param {{src: string, alt: string}} props */
function Preview({ src, alt }) {
  const [loaded, setLoaded] = useState("");
  const order = useRef({ asked: 0, shown: 0, isLive: true });
  useEffect(() => () => void (order.current.isLive = false), []);
  useEffect(() => {
    const mine = ++order.current.asked;
    void previewUrl(src).then((url) => {
      if (url === null || !order.current.isLive || mine < order.current.shown) return;
      order.current.shown = mine;
      setLoaded((before) => {
        URL.revokeObjectURL(before);
        return url;
      });
    });
  }, [src]);
  return loaded ? html`<img class="preview" src=${loaded} alt=${alt} />` : html`<div class="canvas-wait"><span class="shimmer"></span></div>`;
}

/** The blob: address of a preview, whose own address is always the same. @param {string} src @returns {Promise<string | null>} */
async function previewUrl(src) {
  const reply = await fetch(src, { cache: "no-store" }).catch(() => null);
  return reply?.ok ? URL.createObjectURL(await reply.blob()) : null;
}

/** @param {number} before how many jobs run or wait before this one */
function waitText(before) {
  return before > 0 ? `${counted(before, "job")} before yours` : "Next in the queue";
}

/** Counts down between the events. @param {{job: import("../state/jobs.js").Job}} props */
function TimeLeft({ job }) {
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => tick((count) => count + 1), 1000);
    return () => clearInterval(timer);
  }, []);
  if (job.eta_s === null) return null;
  const left = Math.max(0, job.eta_s - (Date.now() - (job.seenAt ?? Date.now())) / 1000);
  return html`<span class="muted">about ${seconds(Math.max(left, 1))} left</span>`;
}

/**
 * An image that gives way to the next one only when that has been loaded.
 * @param {{src: string, alt: string, width?: number | null, height?: number | null}} props
 */
function SteadyImage(props) {
  const [shown, setShown] = useState(/** @type {typeof props | null} */ (null));
  const latest = useRef(props);
  latest.current = props;
  useEffect(() => {
    const { src } = props;
    const next = new Image();
    next.onload = next.onerror = () => {
      if (latest.current.src === src) setShown(latest.current);
    };
    next.src = src;
  }, [props.src]);
  if (shown === null) return html`<div class="canvas-wait"><span class="shimmer"></span></div>`;
  const { src, alt, width, height } = shown.src === props.src ? props : shown;
  return html`<img src=${src} alt=${alt} width=${width ?? undefined} height=${height ?? undefined} />`;
}

/** Show the image that is newer or older by so many. @param {string} name @param {number} by */
function step(name, by) {
  const at = newest.value.findIndex((each) => each.name === name);
  const next = at === -1 ? undefined : newest.value[at + by];
  if (next) shownImage.value = next.name;
}

/** @param {{name: string}} props */
function StoredImage({ name }) {
  const item = itemNamed(name);
  useEffect(() => {
    markSeen(name);
    return bindKeys({
      ...imageKeys(name),
      ArrowLeft: () => step(name, -1),
      ArrowRight: () => step(name, 1),
    });
  }, [name]);
  const siblings = item ? newest.value.filter((each) => each.uuid === item.uuid) : [];
  return html`<section class="stage" aria-label="Image">
    <a class="canvas" href=${`#picture/${name}`} aria-label="Open the image">
      <${SteadyImage} src=${imageUrl(name)} alt=${item?.prompt ?? "Image"} width=${item?.width} height=${item?.height} />
    </a>
    ${siblings.length > 1 && html`<div class="siblings" role="group" aria-label="Images of this job">
      ${siblings.map((each) => html`<button key=${each.name} type="button" aria-pressed=${String(each.name === name)}
        aria-label=${`Image ${each.image_index + 1} of ${each.num_images}`}
        onClick=${() => (shownImage.value = each.name)}><img src=${imageUrl(each.name, { px: 128 })} alt="" /></button>`)}
    </div>`}
    <${ImageActions} name=${name} item=${item} isCompact=${true} />
    ${item && html`<p class="prompt-line muted">${item.prompt}</p>`}
  </section>`;
}
