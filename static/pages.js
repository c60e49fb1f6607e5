// A list of the server in keyset pages: the page that is shown, the way back, and how to look again. Answers that
// come too late, for a question that is no longer asked, are dropped.

import { text } from "./messages.js";

/**
 * Make a list; `fetch({limit, page})` resolves with `{items, next, total?, total_capped?, shown?}` (`shown` when items are not rows), `table` is of table.js.
 * `load()` shows the first page, `refresh()` looks at the present one again.
 */
export function pages({ fetch, table, limit = 50, problem, signal }) {
  const listeners = new Set();
  let tokens = [null], following = null, turn = 0, answer = { items: [] };

  async function show(place, { quiet = false } = {}) {
    const mine = ++turn;
    if (!quiet) table.wait();
    try {
      const found = await fetch({ limit, page: tokens[place] });
      if (mine !== turn || signal?.aborted) return null;
      tokens = tokens.slice(0, place + 1);
      if (!found.items.length && place > 0) return show(place - 1, { quiet }); // the last page has emptied
      [answer, following] = [found, found.next];
      table.show(found.items);
      tell();
      return found;
    } catch (error) {
      if (mine !== turn || signal?.aborted) return null;
      if (!quiet || error.status) table.fail(problem(error, () => show(place)));
      tell();
      return null;
    }
  }

  const tell = () => listeners.forEach((listener) => listener());
  const list = {
    on: (listener) => { listeners.add(listener); tell(); },
    load: () => { tokens = [null]; return show(0); },
    refresh: () => show(tokens.length - 1, { quiet: true }),
    next: () => { if (list.hasNext) { tokens.push(following); show(tokens.length - 1); } },
    back: () => { if (list.hasBack) { tokens.pop(); show(tokens.length - 1); } },
    resize: (rows) => { limit = rows; return list.load(); },
    get answer() { return answer; },
    get hasNext() { return following !== null; },
    get hasBack() { return tokens.length > 1; },
    /** Say which rows these are, and of how many. */
    words() {
      const first = (tokens.length - 1) * limit, shown = answer.shown ?? answer.items.length;
      if (!shown) return "";
      const range = { from: first + 1, to: first + shown };
      const total = answer.total ?? (list.hasNext ? null : range.to); // the last page tells how many there are
      if (total === null) return text("pageRange", range);
      return text(answer.total_capped ? "pageOfMany" : "pageOf", { ...range, total });
    },
  };
  return list;
}
