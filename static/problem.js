// What went wrong, in a sentence, where it belongs: beside a field, in a dialog, or over a list with a way to try again.

import { make, write } from "./dom.js";
import { icon } from "./icons.js";
import { duration, text } from "./messages.js";

const BACK = "back";
const sentence = (words) => words.replace(/^./u, (first) => first.toUpperCase());

/** Put a refusal into words; without an answer it is the network. */
export function problemText(error) {
  if (!error.status) return text("offline");
  if (error.wait && error.status === 429) return text("tryAgainIn", { time: duration(error.wait / 1000) });
  if (error.code === "COUNT_CHANGED") return text("countChanged", error.problem);
  return sentence(error.message);
}

/** Write a refusal into a node with role="alert". */
export const sayProblem = (node, error) => write(node, problemText(error));

/** Build what stands in the place of a list that could not be fetched. */
export function problemNote(error, again) {
  const button = make("button", { type: "button", text: text("tryAgain"), on: { click: again } });
  const element = make("div", { class: "note-block bad", role: "alert", "data-offline": !error.status }, icon("warning"), make("p", { text: problemText(error) }), again ? button : null);
  if (again) element.addEventListener(BACK, () => again());
  return element;
}

/** Try again what is shown below `root` as not reached: the server is back. */
export function tryAgainBelow(root) {
  for (const note of root.querySelectorAll("[data-offline]")) note.dispatchEvent(new Event(BACK));
}

/** Build what teaches a reader of an empty list what would be in it. */
export function emptyNote({ title, detail, action, picture = "table" }) {
  return make("div", { class: "note-block" }, icon(picture), make("p", { class: "note-title", text: title }), detail ? make("p", { class: "muted", text: detail }) : null, action);
}
