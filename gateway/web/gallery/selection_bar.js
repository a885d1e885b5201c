// What can be done with the selected images.
import { html } from "../vendor/preact.js";
import { counted } from "../lib/format.js";
import { go } from "../lib/router.js";
import { useAll } from "../picture/actions.js";
import { deleteImages, downloadZip, restoreImages, select, selection, starImages, trashImages } from "../state/collection.js";
import { itemNamed, query } from "../state/results.js";
import { Icon } from "../ui/icon.js";

export function SelectionBar() {
  const names = [...selection.value];
  if (names.length === 0) return null;
  const isTrash = query.value.trash === "true";
  const allStarred = names.every((name) => itemNamed(name)?.star);
  return html`<div class="selection-bar" role="toolbar" aria-label="Selected images">
    <strong>${counted(names.length, "image")} selected</strong>
    ${isTrash
      ? html`<${Act} icon="Undo2" label="Restore" onClick=${() => {
          void restoreImages(names);
          select([]);
        }} />
        <${Act} icon="Trash2" label="Delete for good" onClick=${() => {
          void deleteImages(names);
          select([]);
        }} />`
      : html`
        <${Act} icon="Star" label=${allStarred ? "Remove stars" : "Star"} onClick=${() => void starImages(names, !allStarred)} />
        <${Act} icon="Columns2" label="Compare" disabled=${names.length !== 2} onClick=${() => go(`compare/${names[0]}/${names[1]}`)} />
        <${Act} icon="RotateCcw" label="Same settings" disabled=${names.length !== 1} onClick=${() => useAll(names[0])} />
        <${Act} icon="FileArchive" label="Zip" onClick=${() => void downloadZip(names)} />
        <${Act} icon="Trash2" label="Delete" onClick=${() => void trashImages(names)} />`}
    <${Act} icon="X" label="Clear" onClick=${() => select([])} />
  </div>`;
}

/** @param {{icon: any, label: string, onClick: () => void, disabled?: boolean}} props */
function Act({ icon, label, onClick, disabled }) {
  return html`<button type="button" disabled=${disabled} onClick=${onClick}><${Icon} name=${icon} size=${16} /><span>${label}</span></button>`;
}
