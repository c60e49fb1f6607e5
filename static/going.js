// Which rows are on their way out: those that a job of this tab took with it, and those that a job says it has done.
// They stay greyed until a change of the list confirms it, and are as before when the job ends.

const TAKES_AWAY = new Set(["delete", "purge", "restore", "remove"]);
const MINE = "bulkops:mine";
const MAX_GONE = 5_000;

export class Going {
  #page; #resource; #jobs = new Map(); #gone = new Map(); #mine;

  constructor(page, resource, { changed, ended, signal }) {
    [this.#page, this.#resource] = [page, resource];
    this.#mine = new Set(JSON.parse(sessionStorage.getItem(MINE) ?? "[]"));
    page.live.on("gone", (said) => { if (said.resource === resource && this.#take(said)) changed(); }, signal);
    page.live.on("ended", (job) => {
      if (job.resource !== resource) return;
      this.#jobs.delete(job.id);
      for (const [id, by] of this.#gone) if (by === job.id) this.#gone.delete(id);
      changed();
      ended(job, this.#forget(job.id));
    }, signal);
  }

  /** A job of this tab has begun with what was selected: `{all, ids, list}`; of all in that list these ids are left out. */
  begin(job, { all, ids, list }) {
    this.#mine.add(job.id);
    sessionStorage.setItem(MINE, JSON.stringify([...this.#mine].slice(-20)));
    if (!job.terminal) this.#jobs.set(job.id, { all, ids: new Set(ids), list });
  }

  #forget(id) {
    const was = this.#mine.delete(id);
    if (was) sessionStorage.setItem(MINE, JSON.stringify([...this.#mine]));
    return was;
  }

  #take({ job, items }) {
    const action = this.#page.live.jobs.get(job)?.action;
    if (!TAKES_AWAY.has(action)) return false;
    for (const { id, outcome } of items) if (outcome === "succeeded") this.#gone.set(id, job);
    while (this.#gone.size > MAX_GONE) this.#gone.delete(this.#gone.keys().next().value);
    return true;
  }

  /** For a row of a list: "gone" when a job says so, "going" when one has it before it, else null. */
  stateOf(id, inList) {
    if (this.#gone.has(id)) return "gone";
    for (const { all, ids, list } of this.#jobs.values()) if (all ? list === inList && !ids.has(id) : ids.has(id)) return "going";
    return null;
  }
}
