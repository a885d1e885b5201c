// The view of one image: large, with its neighbours by arrows, its settings at the side, and its acts.
import { html, useEffect, useState } from "../vendor/preact.js";
import { imageUrl } from "../lib/api.js";
import { go } from "../lib/router.js";
import { recordOf } from "../state/records.js";
import { ensure, itemAt, itemNamed, markSeen, newest, positionOf, total } from "../state/results.js";
import { IconButton } from "../ui/controls.js";
import { bindKeys } from "../ui/shortcuts.js";
import { ImageActions, imageKeys } from "./actions.js";
import { Facts } from "./facts.js";
import { Proof } from "./proof.js";
import { Zoomable } from "./zoomable.js";

/** @param {{args: string[]}} props */
export function PictureView({ args }) {
  const name = args[0] ?? "";
  const { record, error } = useRecord(name);
  const item = itemNamed(name);
  const [newer, older] = neighbours(name);
  useEffect(() => markSeen(name), [name]);
  useEffect(() => {
    /** @param {string | null} next */
    const show = (next) => next && go(`picture/${next}`, { replace: true });
    return bindKeys({
      ArrowLeft: () => show(neighbours(name)[0]),
      ArrowRight: () => show(neighbours(name)[1]),
      ...imageKeys(name, () => leave(name)),
      Escape: () => go("gallery"),
    });
  }, [name]);
  if (error) {
    return html`<div class="nothing"><h2>There is no such image</h2><p class="muted">${error}</p>
      <a class="button" href="#gallery">Open the gallery</a></div>`;
  }
  return html`<article class="picture" aria-label="Image">
    <div class="picture-main">
      <${Zoomable} src=${imageUrl(name)} placeholder=${item ? imageUrl(name, { px: 256 }) : undefined}
        alt=${record?.prompt ?? item?.prompt ?? "Image"} width=${record?.width ?? item?.width} height=${record?.height ?? item?.height}
        onSwipe=${(/** @type {1 | -1} */ direction) => {
          const next = direction === 1 ? older : newer;
          if (next) go(`picture/${next}`, { replace: true });
        }} />
      <${IconButton} icon="ChevronLeft" label="Newer image" keys="←" class="step newer" disabled=${newer === null}
        onClick=${() => newer && go(`picture/${newer}`, { replace: true })} />
      <${IconButton} icon="ChevronRight" label="Older image" keys="→" class="step older" disabled=${older === null}
        onClick=${() => older && go(`picture/${older}`, { replace: true })} />
      <a class="button back" href="#gallery">Gallery</a>
    </div>
    <div class="picture-side">
      <h1 class="visually-hidden">Image</h1>
      <${ImageActions} name=${name} item=${item ?? starless(name, record)} onGone=${() => leave(name)} />
      ${record && html`<${Proof} name=${name} record=${record} /><${Facts} record=${record} />`}
    </div>
  </article>`;
}

/** @param {string} name @param {any} record */
function starless(name, record) {
  return record ? { ...record, name, star: record.star ?? false } : undefined;
}

/** @param {string} name */
function useRecord(name) {
  const [state, setState] = useState(/** @type {{record: any, error: string}} */ ({ record: null, error: "" }));
  useEffect(() => {
    let isLive = true;
    setState({ record: null, error: "" });
    recordOf(name).then(
      (record) => isLive && setState({ record, error: "" }),
      (error) => isLive && setState({ record: null, error: error.message }),
    );
    return () => {
      isLive = false;
    };
  }, [name]);
  return state;
}

/**
 * The names before and after an image: in the gallery's list where it is loaded, else in the newest.
 * @param {string} name
 * @returns {[string | null, string | null]}
 */
function neighbours(name) {
  const position = positionOf(name);
  if (position === -1) {
    const at = newest.value.findIndex((each) => each.name === name);
    return at === -1 ? [null, null] : [newest.value[at - 1]?.name ?? null, newest.value[at + 1]?.name ?? null];
  }
  ensure(Math.max(0, position - 1), Math.min(position + 1, (total.value ?? 1) - 1));
  return [itemAt(position - 1)?.name ?? null, itemAt(position + 1)?.name ?? null];
}

/** Show the next image after this one was deleted. @param {string} name */
function leave(name) {
  const [newer, older] = neighbours(name);
  const next = older ?? newer;
  if (next) go(`picture/${next}`, { replace: true });
  else go("gallery");
}
