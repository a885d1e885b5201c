// Whether the mask editor is open. Its code is loaded when it is opened for the first time.
import { signal } from "../vendor/preact.js";

export const maskEditor = signal(false);
