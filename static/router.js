// Where the reader is: `#/resources/receipts?status=closed` as a path and a query, and how to go elsewhere.

/** Read an address; one that is empty or not ours is the start. */
export function readRoute(hash = location.hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const parts = path.split("/").filter(Boolean).map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part; // typed by hand
    }
  });
  return { view: parts[0] ?? "", path: parts.slice(1), query: new URLSearchParams(query) };
}

/** Write an address: `href("resources", ["receipts"], {status: "closed"})`. */
export function href(view, path = [], query) {
  const search = String(new URLSearchParams(query ?? ""));
  return `#/${[view, ...path].map(encodeURIComponent).join("/")}${search && `?${search}`}`;
}

/** Go somewhere; `replace` leaves no step behind for the back button. */
export function go(address, { replace = false } = {}) {
  if (address === location.hash) return;
  if (!replace) location.hash = address;
  else {
    history.replaceState(null, "", address);
    dispatchEvent(new HashChangeEvent("hashchange"));
  }
}
