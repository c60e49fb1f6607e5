// How the page asks the server: the cookie is the credential, a refusal is an Error with `status`, `code`, the whole
// `problem` and, where the server said so, `wait` in milliseconds, as the client has it.

/** Make `ask(method, path, body)` for the server at `base`; `loggedOut` is called when the session has ended. */
export function asker(base, loggedOut) {
  return async function ask(method, path, body, { signal } = {}) {
    const write = method !== "GET";
    const headers = { Accept: "application/json", ...(write && { "Content-Type": "application/json" }) };
    const answer = await fetch(new URL(path, base), { method, headers, body: write ? JSON.stringify(body ?? {}) : undefined, signal });
    const said = (await answer.text()) || "null";
    if (answer.ok) return JSON.parse(said);
    const problem = said.startsWith("{") ? JSON.parse(said) : {};
    if (answer.status === 401) loggedOut();
    const wait = 1000 * answer.headers.get("retry-after");
    throw Object.assign(new Error(problem.detail ?? answer.statusText), { status: answer.status, code: problem.code, problem, wait });
  };
}

/** Write a path of the API: `at("bulk", "receipts", "items")`. */
export const at = (...parts) => `api/${parts.map(encodeURIComponent).join("/")}`;

/** Write a query, leaving out what is unset. */
export function query(values) {
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const search = String(new URLSearchParams(given));
  return search && `?${search}`;
}
