// The view Make: the form at the left, the image in the middle, queue and newest images at the right.
import { html, signal, useEffect } from "../vendor/preact.js";
import { undoForm } from "../state/form.js";
import { cancelJob, watchedJob } from "../state/jobs.js";
import { Icon } from "../ui/icon.js";
import { bindKeys } from "../ui/shortcuts.js";
import { Dialog } from "../ui/controls.js";
import { Lazy } from "../ui/lazy.js";
import { maskEditor } from "./mask_door.js";
import { DrawBar, Prompts, Settings } from "./settings.js";
import { Stage } from "./stage.js";
import { Strip } from "./strip.js";

/** On a phone the settings are a sheet. */
const isSheetOpen = signal(false);
const isCancelAsked = signal(false);

export function MakeView() {
  useEffect(
    () =>
      bindKeys({
        "$mod+z": undoForm,
        Escape: () => {
          if (isSheetOpen.value) isSheetOpen.value = false;
          else if (watchedJob.value) isCancelAsked.value = true;
        },
      }),
    [],
  );
  return html`<div class=${`make ${isSheetOpen.value ? "is-sheet-open" : ""}`}>
    <h1 class="visually-hidden">Make an image</h1>
    <section class="form" aria-label="What to draw">
      <${Prompts} />
      <div class="sheet" id="settings"><${Settings} /></div>
      <div class="form-foot">
        <button type="button" class="narrow-only sheet-button" aria-expanded=${String(isSheetOpen.value)} aria-controls="settings"
          onClick=${() => (isSheetOpen.value = !isSheetOpen.value)}><${Icon} name=${isSheetOpen.value ? "ChevronDown" : "Settings2"} /> ${isSheetOpen.value ? "Done" : "Settings"}</button>
        <${DrawBar} />
      </div>
    </section>
    <${Stage} />
    <${Strip} />
    <${CancelQuestion} />
    ${maskEditor.value && html`<${Lazy} load=${() => import("../mask/mask_editor.js")} name="MaskEditor" style="views" />`}
  </div>`;
}

function CancelQuestion() {
  const close = () => {
    isCancelAsked.value = false;
  };
  return html`<${Dialog} title="Cancel this job?" isOpen=${isCancelAsked.value} onClose=${close} class="small-dialog">
    <p>The image that is being made is given up.</p>
    <div class="dialog-actions">
      <button type="button" onClick=${close}>Go on</button>
      <button type="button" class="primary" onClick=${() => {
        close();
        if (watchedJob.value) void cancelJob(watchedJob.value.uuid);
      }}>Cancel the job</button>
    </div>
  <//>`;
}
