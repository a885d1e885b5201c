export { Fragment, createContext, h, render } from "preact";
export {
  useCallback,
  useEffect,
  useErrorBoundary,
  useId,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
} from "preact/hooks";
export {
  batch,
  computed,
  effect,
  signal,
  untracked,
  useComputed,
  useSignal,
  useSignalEffect,
} from "@preact/signals";
export type { ReadonlySignal, Signal } from "@preact/signals";
export type { ComponentChildren, VNode } from "preact";
/** htm bound to preact's h: a template of one root. */
export const html: (strings: TemplateStringsArray, ...values: unknown[]) => import("preact").VNode;
