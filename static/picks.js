// Which rows are meant: some, by their ids; or all that match a filter but for some. All is never a list of ids.

/** A start names at most so many ids. */
export const MAX_IDS = 1000;

export class Picks {
  #all = false; #ids = new Set(); #listeners = new Set();
  last = null;

  on(listener) { this.#listeners.add(listener); }
  #tell() { this.#listeners.forEach((listener) => listener(this)); }

  /** Whether everything that matches is meant, but for what was taken out. */
  get isAll() { return this.#all; }
  /** The ids that were named: meant, or left out of all. */
  get named() { return [...this.#ids]; }
  /** Whether no further id can be named. */
  get isFull() { return this.#ids.size >= MAX_IDS; }
  get isEmpty() { return !this.#all && this.#ids.size === 0; }

  has(id) { return this.#all !== this.#ids.has(id); }

  toggle(id) {
    this.last = id;
    if (this.has(id)) this.drop([id]);
    else this.add([id]);
  }

  add(ids) { this.#name(ids, !this.#all); }
  drop(ids) { this.#name(ids, this.#all); }

  #name(ids, into) {
    for (const id of ids) {
      if (!into) this.#ids.delete(id);
      else if (this.#ids.size < MAX_IDS) this.#ids.add(id);
    }
    this.#tell();
  }

  all() {
    this.#all = true;
    this.#ids.clear();
    this.#tell();
  }

  clear() {
    if (this.isEmpty) return;
    this.#all = false;
    this.#ids.clear();
    this.#tell();
  }

  /** Forget ids that are no more; those left out of all stay left out. */
  prune(gone) {
    if (!this.#all && gone.some((id) => this.#ids.delete(id))) this.#tell();
  }

  /** How many of `total` matching are meant, null when the total is not known. */
  count(total) {
    if (!this.#all) return this.#ids.size;
    return total === null ? null : Math.max(0, total - this.#ids.size);
  }

  /** Write the selection of a start: `filter` is null when there is no condition. */
  selection(filter) {
    if (!this.#all) return { ids: this.named };
    const except = this.#ids.size ? { exclude_ids: this.named } : {};
    return { ...(filter ? { filter } : { all: true }), ...except };
  }
}
