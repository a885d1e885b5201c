// The badge that says whether the same request still gives the same pixels.
import { html } from "../vendor/preact.js";
import { isVerifying, proofs, verify } from "../state/verification.js";
import { Icon } from "../ui/icon.js";

/** @param {{name: string, record: Record<string, any>}} props */
export function Proof({ name, record }) {
  const proof = proofs.value[name];
  if (record.upscale) return null;
  return html`<section class="proof" aria-label="Verification" aria-live="polite">
    ${proof?.state === "identical" && html`<p class="badge good"><${Icon} name="BadgeCheck" size=${20} /><span><strong>Identical.</strong> Drawn again, every pixel is the same.</span></p>`}
    ${proof?.state === "differs" && html`<p class="badge bad"><${Icon} name="CircleAlert" size=${20} /><span><strong>Differs.</strong> ${proof.reason}</span></p>`}
    ${proof?.state === "failed" && html`<p class="badge bad"><${Icon} name="CircleAlert" size=${20} /><span>It could not be verified: ${proof.reason}</span></p>`}
    <button type="button" disabled=${isVerifying.value} onClick=${() => void verify(name)}>
      <${Icon} name="BadgeCheck" size=${16} />
      ${proof?.state === "running" ? "Drawing it again …" : proof ? "Verify again" : "Verify"}</button>
    ${!proof && html`<span class="small muted">This draws the image again and compares the pixels.</span>`}
  </section>`;
}
