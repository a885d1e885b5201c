// Asks for the key of the service, after a 401.
import { html, useState } from "../vendor/preact.js";
import { cancelKey, keyDialog, submitKey } from "../state/session.js";
import { Dialog } from "./controls.js";

export function KeyDialog() {
  const [key, setKey] = useState("");
  const { isOpen, error } = keyDialog.value;
  return html`<${Dialog} title="This service needs a key" isOpen=${isOpen} onClose=${cancelKey} class="small-dialog">
    <form onSubmit=${(/** @type {Event} */ event) => {
      event.preventDefault();
      void submitKey(key.trim());
      setKey("");
    }}>
      <p>Paste the key that the service printed at its first start, or that its owner made with${" "}
        <code>sde key add NAME</code>. This browser keeps it in a cookie.</p>
      <label for="key-input">Key</label>
      <input id="key-input" type="password" autocomplete="current-password" required autofocus
        value=${key} aria-describedby="key-error" aria-invalid=${Boolean(error)}
        onInput=${(/** @type {any} */ event) => setKey(event.target.value)} />
      <p class="field-error" id="key-error" role="alert">${error}</p>
      <div class="dialog-actions"><button class="primary" type="submit">Sign in</button></div>
    </form>
  <//>`;
}
