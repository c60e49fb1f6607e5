// One connection for all elements of a page that talk to the same server.

import { connect } from "./bulkops.js";

const clients = new Map();

/** Return the client of an element: its own `client` property, else the one shared by its `url`. */
export function clientOf(element) {
  if (element.client) return element.client;
  const url = element.getAttribute("url") ?? new URL("../", import.meta.url).href;
  const base = new URL(url, document.baseURI).href;
  if (!clients.has(base)) clients.set(base, connect({ url: base, storage: globalThis.sessionStorage }));
  return clients.get(base);
}
