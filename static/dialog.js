// A dialog over the page: a title, what is in it, its buttons below. Escape and the first button leave everything
// as it was; whoever opened it has the keyboard again afterwards.

import { make, write } from "./dom.js";
import { icon } from "./icons.js";
import { text } from "./messages.js";
import { sayProblem } from "./problem.js";

let dialogs = 0;

/** Open a dialog; `side` puts it at the edge, as a panel. Resolves `closed` with what `close(value)` was given. */
export function openDialog({ title, body, buttons = [], side = false, wide = false, signal }) {
  const id = `dialog-${++dialogs}`;
  const heading = make("h2", { id, tabindex: -1, text: title });
  const cross = make("button", { type: "button", class: "quiet square", "aria-label": text("close"), on: { click: () => close() } }, icon("close"));
  const foot = make("footer", { class: "dialog-foot" }, ...buttons);
  const content = make("div", { class: "dialog-body" }, ...[body].flat());
  const names = ["dialog", side && "side-panel", wide && "wide"].filter(Boolean).join(" ");
  const element = make("dialog", { class: names, "aria-labelledby": id }, make("header", { class: "dialog-head" }, heading, cross), content, foot);
  foot.hidden = !buttons.length;
  let settle, value;
  const closed = new Promise((resolve) => { settle = resolve; });
  const close = (given) => { value = given; element.close(); };
  element.addEventListener("close", () => { element.remove(); settle(value); });
  signal?.addEventListener("abort", () => close());
  element.addEventListener("click", (event) => { if (event.target === element && side) close(); });
  document.body.append(element);
  element.showModal();
  heading.focus();
  return { element, body: content, foot, close, closed, retitle: (words) => write(heading, words) };
}

/** Ask before something that cannot be taken back; resolves with true when it was wanted. */
export function confirmed({ title, message, action, danger = true }) {
  const no = make("button", { type: "button", text: text("leaveIt"), on: { click: () => dialog.close(false) } });
  const yes = make("button", { type: "button", class: danger ? "primary danger" : "primary", text: action, on: { click: () => dialog.close(true) } });
  const dialog = openDialog({ title, body: make("p", { text: message }), buttons: [no, yes] });
  no.focus();
  return dialog.closed.then(Boolean);
}

/**
 * Open a dialog around a form of form.js; `submit(values)` acts, its refusal is shown where it belongs, its result is
 * what `closed` resolves with.
 */
export function openForm({ title, form, action, submit, danger = false, intro, signal }) {
  const go = make("button", { type: "submit", class: danger ? "primary danger" : "primary", text: action });
  const no = make("button", { type: "button", text: text("notNow"), on: { click: () => dialog.close() } });
  const error = make("p", { class: "error", role: "alert" });
  const act = async (event) => {
    event.preventDefault();
    go.disabled = true;
    write(error, "");
    try {
      dialog.close((await submit(form.values())) ?? true);
    } catch (refusal) {
      if (!form.complain(refusal)) sayProblem(error, refusal);
    } finally {
      go.disabled = false;
    }
  };
  const element = make("form", { class: "form", novalidate: true, on: { submit: act } }, intro ? make("p", { class: "muted", text: intro }) : null, form.element, error, make("div", { class: "dialog-foot" }, no, go));
  const dialog = openDialog({ title, body: element, signal });
  dialog.body.classList.add("has-form");
  form.focus();
  return dialog;
}
