// The messages at the edge of the page, the bands above it, and the live region.
import { html } from "../vendor/preact.js";
import { connection } from "../lib/event_stream.js";
import { announcement, dismiss, notices } from "../state/notices.js";
import { outbox } from "../state/drawing.js";
import { diskTrouble, isUnreachable, loadError } from "../state/workers.js";
import { counted } from "../lib/format.js";
import { isSignInDeclined, openKeyDialog } from "../state/session.js";
import { IconButton } from "./controls.js";

export function Notices() {
  return html`<div class="notices" role="region" aria-label="Messages">
    ${notices.value.map(
      (each) => html`<div key=${each.id} class=${`notice ${each.kind}`}>
        <span>${each.text}</span>
        ${each.act &&
        html`<button type="button" class="link" onClick=${() => {
          dismiss(each.id);
          each.act?.act();
        }}>${each.act.label}</button>`}
        <${IconButton} icon="X" label="Close the message" onClick=${() => dismiss(each.id)} />
      </div>`,
    )}
  </div>`;
}

/** Says start, half, end and errors to screen readers. */
export function LiveRegion() {
  return html`<p class="visually-hidden" role="status" aria-live="polite">${announcement.value}</p>`;
}

/** What concerns the whole page: not connected, disk full, no worker. */
export function Bands() {
  return html`<div class="bands">
    ${connection.value === "offline" &&
    html`<p class="band" role="status">
      <span class="pulse" aria-hidden="true"></span>
      Not connected, trying again. What you sent goes on${outbox.value.length > 0
        ? `; ${counted(outbox.value.length, "job")} will be sent once the service is back`
        : ""}.
    </p>`}
    ${isSignInDeclined.value &&
    html`<p class="band" role="status">This service needs a key.${" "}
      <button type="button" class="link" onClick=${openKeyDialog}>Sign in</button></p>`}
    ${diskTrouble.value &&
    html`<p class="band error" role="status">
      No new images: ${diskTrouble.value}. Delete images, or make room on the disk; stored images stay.${" "}
      <a href="#gallery">Open the gallery</a>
    </p>`}
    ${connection.value === "online" && isUnreachable.value && !loadError.value &&
    html`<p class="band" role="status">
      <span class="pulse" aria-hidden="true"></span>
      The worker does not answer; it is restarted by itself. Jobs wait in the queue.
    </p>`}
    ${connection.value === "online" && loadError.value &&
    html`<p class="band error" role="status">
      No worker can draw: ${loadError.value} <a href="#server">Open the server view</a>
    </p>`}
  </div>`;
}
