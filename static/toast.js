// Short messages at the edge of the page; one that offers a way back counts down, and waits while it is pointed at
// or holds the keyboard.

import { make, write } from "./dom.js";
import { icon } from "./icons.js";
import { text } from "./messages.js";

const SHOWN_S = 8, WITH_ACTION_S = 20, MAX = 4;

/** Build the place of the toasts; `toast(message, {tone, detail, action: {label, act, picture}, link, seconds})` shows one. */
export function toaster(announce) {
  const list = make("ul", { class: "toasts" });

  function toast(message, { tone = "plain", detail, action, link, seconds } = {}) {
    const close = make("button", { type: "button", class: "quiet square", "aria-label": text("dismiss"), on: { click: () => end() } }, icon("close"));
    const words = make("div", { class: "toast-words" }, make("strong", { text: message, title: message }), detail ? make("span", { class: "muted", text: detail }) : null);
    const left = make("span", { class: "number", "aria-hidden": "true" });
    const button = action && make("button", { type: "button", class: "way-back", on: { click: () => { end(); action.act(); } } }, action.picture ? icon(action.picture) : null, action.label, left);
    const more = link && make("a", { href: link.href, text: link.label, on: { click: () => end() } });
    const entry = make("li", { class: "toast", "data-tone": tone }, words, more, button, close);
    let until = seconds ?? (action ? WITH_ACTION_S : SHOWN_S);
    const tick = () => {
      if (!entry.isConnected) return clearInterval(timer);
      if (!entry.matches(":hover, :focus-within") && document.visibilityState === "visible") until -= 1;
      write(left, text("secondsLeft", { n: Math.max(until, 0) }));
      if (until <= 0) end();
    };
    const timer = setInterval(tick, 1000);
    const end = () => { clearInterval(timer); entry.remove(); };
    write(left, text("secondsLeft", { n: until }));
    list.append(entry);
    while (list.childElementCount > MAX) list.firstElementChild.remove();
    announce([message, detail, action && text("canUndoHere", { label: action.label })].filter(Boolean).join(". "));
    return { close: end };
  }

  return { element: make("section", { class: "toast-place", "aria-label": text("messages") }, list), toast };
}
