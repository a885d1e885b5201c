// The head of the page: the views, what the service does now, theme and keyboard help.
import { html } from "../vendor/preact.js";
import { connection } from "../lib/event_stream.js";
import { counted } from "../lib/format.js";
import { route } from "../lib/router.js";
import { activeJobs } from "../state/jobs.js";
import { loadingWorker, workers } from "../state/workers.js";
import { IconButton } from "./controls.js";
import { Icon } from "./icon.js";
import { isHelpOpen } from "./shortcuts.js";
import { isDark, toggleTheme } from "./theme.js";

const LINKS = [
  { view: "make", label: "Make", icon: "Sparkles", also: [] },
  { view: "gallery", label: "Gallery", icon: "Images", also: ["picture", "compare"] },
  { view: "grid", label: "Grid", icon: "Grid3x3", also: [] },
  { view: "server", label: "Server", icon: "Server", also: [] },
];

export function Header() {
  const { view } = route.value;
  return html`<header class="top">
    <a class="brand" href="#make" aria-label="Stable Diffusion Environment, make an image">
      <${Logo} />
    </a>
    <nav aria-label="Views">
      ${LINKS.map(
        (link) => html`<a key=${link.view} href=${`#${link.view}`}
          aria-current=${view === link.view || link.also.includes(view) ? "page" : undefined}>
          <${Icon} name=${link.icon} size=${17} /><span>${link.label}</span>
        </a>`,
      )}
    </nav>
    <span class="spacer"></span>
    <${Status} />
    <${IconButton} icon=${isDark() ? "Sun" : "Moon"} label=${isDark() ? "Light theme" : "Dark theme"}
      onClick=${toggleTheme} />
    <${IconButton} icon="Keyboard" label="Keyboard shortcuts" keys="?" class="wide-only"
      onClick=${() => (isHelpOpen.value = true)} />
  </header>`;
}

function Logo() {
  return html`<svg viewBox="0 0 32 32" width="28" height="28" aria-hidden="true">
    <rect class="logo-tile" x="1" y="1" width="30" height="30" rx="9" />
    <circle class="logo-dot" cx="11" cy="21" r="2.2" />
    <circle class="logo-dot" cx="16.5" cy="15.5" r="3.2" />
    <circle class="logo-dot" cx="23" cy="9" r="4.2" />
  </svg>`;
}

/** One line: what the service does now. */
function Status() {
  const { text, kind } = summary();
  return html`<a class=${`status ${kind}`} href="#server" title="Open the server view">
    <span class="dot" aria-hidden="true"></span><span class="status-text">${text}</span>
  </a>`;
}

function summary() {
  if (connection.value === "offline") return { text: "Not connected", kind: "bad" };
  if (connection.value === "connecting") return { text: "Connecting", kind: "wait" };
  const loading = loadingWorker.value;
  if (loading) return { text: `Loading ${loading.model ?? "the model"}`, kind: "wait" };
  const ready = workers.value.find((each) => each.state !== "unreachable");
  if (!ready) return { text: "No worker", kind: "bad" };
  const running = activeJobs.value.filter((job) => job.state === "running").length;
  const waiting = activeJobs.value.length - running;
  const name = ready.loaded ?? ready.model ?? "ready";
  if (running === 0) return { text: `${name} on ${ready.device ?? "?"}`, kind: "good" };
  return { text: waiting ? `Drawing, ${counted(waiting, "job")} waiting` : "Drawing", kind: "busy" };
}
