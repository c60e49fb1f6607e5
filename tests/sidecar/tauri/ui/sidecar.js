// A client for the sidecar, whenever there is one: it is told by Rust where the sidecar is, and told anew after a
// restart. The token goes along in a header only; tickets for socket and stream the client gets by itself.

import { connect } from "./bulkops.js";

/** Call `show(status)` on every change and `use(client)` whenever the sidecar is ready anew. */
export async function follow({ show, use, transports }) {
  const { core, event } = window.__TAURI__;
  let client, token;

  const change = (status) => {
    show(status);
    if (status.state !== "ready" || status.token === token) return;
    client?.disconnect();
    token = status.token;
    client = connect({ url: `${status.http}/`, fetch: withToken(token), transports });
    use(client);
  };

  // Listen first and ask then: what happens in between is heard, and hearing it twice does no harm.
  await event.listen("bulkops", ({ payload }) => change(payload));
  change(await core.invoke("bulkops_status"));
}

function withToken(token) {
  return (input, init = {}) => {
    const headers = new Headers(init.headers);
    headers.set("Authorization", `Bearer ${token}`);
    return fetch(input, { ...init, headers });
  };
}
