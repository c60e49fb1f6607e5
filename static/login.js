// Logging in: by the one-time link that `bulkops serve` prints, or with a key. Neither is kept; the server sets
// a cookie that no script can read.

import { make, write } from "./dom.js";
import { text } from "./messages.js";
import { problemText } from "./problem.js";

/** Take the code of a one-time link out of the address, and of the history, before anything else is done with it. */
export function takeCode() {
  const found = /^#login=(.+)$/.exec(location.hash);
  if (found) history.replaceState(null, "", location.pathname + location.search);
  return found ? decodeURIComponent(found[1]) : null;
}

/** Start a session with `{code}` or `{key}`; resolves with who it is, rejects with a refusal. */
export const startSession = (ask, credential) => ask("POST", "api/session", credential);

/** Build the form; `enter` gets the key and resolves when the page is open. */
export function loginForm(enter, complaint = "") {
  const key = make("input", { type: "password", name: "key", autocomplete: "off", required: true });
  const error = make("p", { class: "error", role: "alert", text: complaint });
  const button = make("button", { class: "primary", type: "submit", text: text("logIn") });
  const submit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      await enter({ key: key.value.trim() });
    } catch (refusal) {
      write(error, refusal.status === 401 ? text("loginFailed") : problemText(refusal));
      key.select();
    } finally {
      button.disabled = false;
    }
  };
  const brand = make("h1", { class: "brand" }, make("img", { src: new URL("icon.svg", import.meta.url), alt: "" }), text("title"));
  const form = make("form", { on: { submit } }, make("label", {}, text("key"), key), error, button);
  const intro = make("div", {}, make("p", { text: text("welcome") }), make("p", { class: "muted", text: text("loginHint") }));
  return make("main", { class: "login" }, make("div", { class: "card" }, brand, intro, form));
}
