// Starts the page: the key, the events, the keys, and the view that the address names.
import { effect, html, render } from "./vendor/preact.js";
import { sweepBlobs } from "./lib/blobs.js";
import { route } from "./lib/router.js";
import { MakeView } from "./make/make_view.js";
import { Offer, watchFiles } from "./make/start_image.js";
import { blobsInUse } from "./state/form.js";
import { watchedJob } from "./state/jobs.js";
import { followNews } from "./state/news.js";
import { keyDialog, loadSession, signIn, takeKeyFromAddress } from "./state/session.js";
import { Header } from "./ui/header.js";
import { KeyDialog } from "./ui/key_dialog.js";
import { Lazy } from "./ui/lazy.js";
import { Bands, LiveRegion, Notices } from "./ui/notices.js";
import { ShortcutList, bindGlobalKeys } from "./ui/shortcuts.js";

const TITLE = "Stable Diffusion Environment";

/** @type {Record<string, [string, () => Promise<any>]>} */
const LAZY_VIEWS = {
  gallery: ["GalleryView", () => import("./gallery/gallery_view.js")],
  picture: ["PictureView", () => import("./picture/picture_view.js")],
  compare: ["CompareView", () => import("./compare/compare_view.js")],
  grid: ["GridView", () => import("./grid/grid_view.js")],
  server: ["ServerView", () => import("./server/server_view.js")],
};

function App() {
  const { view, args } = route.value;
  const lazy = LAZY_VIEWS[view];
  return html`<${Header} />
    <${Bands} />
    <main id="main" tabindex="-1" class=${`view-${view}`}>
      ${lazy ? html`<${Lazy} key=${view} style="views" name=${lazy[0]} load=${lazy[1]} args=${args} />` : html`<${MakeView} />`}
    </main>
    <${Notices} />
    <${LiveRegion} />
    <${ShortcutList} />
    <${Offer} />
    <${KeyDialog} />`;
}

/** The tab says how far one's own job is. */
effect(() => {
  const job = watchedJob.value;
  const part = job?.state === "running" && job.steps ? `${job.step ?? 0}/${job.steps} · ` : job ? "waiting · " : "";
  document.title = part + TITLE;
});

async function start() {
  const key = takeKeyFromAddress();
  const root = document.getElementById("app");
  if (root === null) return;
  root.textContent = "";
  render(html`<${App} />`, root);
  bindGlobalKeys();
  watchFiles();
  if (key !== null) {
    const error = await signIn(key).catch((problem) => String(problem.message));
    if (error) keyDialog.value = { isOpen: true, error };
  }
  followNews();
  void loadSession().catch(() => {});
  setTimeout(() => void sweepBlobs(blobsInUse()), 5000);
}

void start();
