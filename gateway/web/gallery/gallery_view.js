// The view Gallery: all images, newest first, with search and selection.
import { html, useEffect } from "../vendor/preact.js";
import { select, selection } from "../state/collection.js";
import { galleryError, query, reload, total } from "../state/results.js";
import { bindKeys } from "../ui/shortcuts.js";
import { Cells } from "./cells.js";
import { SearchBar, setSearch } from "./search_bar.js";
import { SelectionBar } from "./selection_bar.js";

export function GalleryView() {
  useEffect(() => {
    void reload();
    return bindKeys({ Escape: () => selection.value.size > 0 && select([]) });
  }, []);
  return html`<div class="gallery">
    <h1 class="visually-hidden">Gallery</h1>
    <${SearchBar} />
    <${SelectionBar} />
    ${total.value === 0 ? html`<${Nothing} />` : html`<${Cells} />`}
  </div>`;
}

function Nothing() {
  const isFiltered = Object.keys(query.value).length > 0;
  if (galleryError.value) {
    return html`<div class="nothing"><h2>The gallery cannot be shown</h2><p class="muted">${galleryError.value}</p>
      <button type="button" onClick=${() => void reload()}>Try again</button></div>`;
  }
  return isFiltered
    ? html`<div class="nothing"><h2>Nothing matches</h2><p class="muted">All words must occur in the prompt.</p>
        <button type="button" onClick=${() => setSearch("", { now: true })}>Clear the search</button></div>`
    : html`<div class="nothing"><h2>No images yet</h2><p class="muted">What you draw appears here.</p>
        <a class="button" href="#make">Make the first</a></div>`;
}
