// What a screen reader says aloud while the eyes are elsewhere: politely, or at once.

import { make } from "./dom.js";

/** Build the two live regions; `announce(words, {now})` speaks. */
export function announcer() {
  const polite = make("div", { class: "unseen", role: "status" }), urgent = make("div", { class: "unseen", role: "alert" });
  const announce = (words, { now = false } = {}) => {
    const region = now ? urgent : polite;
    region.replaceChildren(make("p", { text: words })); // the same words twice are said twice
  };
  return { element: make("div", { class: "unseen" }, polite, urgent), announce };
}
