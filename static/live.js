// What goes on: one subscription to all that the caller may see, kept as the jobs that are under way. Views and the
// tray listen here, so a page of any size costs one stream, and all of its parts say the same.

import { at, query } from "./api.js";
import { Samples } from "./throughput.js";

const ACTIVE = "scheduled,preparing,queued,running,pausing,paused,cancelling";
const ENDS = new Set(["completed", "failed", "cancelled"]);
const MAX_ACTIVE = 50, MAX_COURSES = 50, MAX_HEARD = 1_000;
const epochOf = (cursor) => cursor.split(":")[0];
const seqOf = (cursor) => Number(cursor.split(":")[1]);

export class Live extends EventTarget {
  jobs = new Map();
  subscription = null;
  #ask; #client; #state = "connecting"; #transport; #fetching = new Map(); #since = new Map(); #ending = new Set(); #courses = new Map();

  constructor({ ask, client }) {
    super();
    this.#ask = ask;
    this.#client = client;
    client.on("state", (change) => {
      [this.#state, this.#transport] = [change.to, change.transport];
      this.#tell("state", change);
    });
  }

  get state() { return this.#state; }
  get transport() { return this.#transport; }

  #tell(name, detail) { this.dispatchEvent(new CustomEvent(name, { detail })); }

  /**
   * Listen; ends with `signal`. Names: "job" (a job's view, new or changed), "ended" (a job that was under way),
   * "gone" (items of a job: `{job, resource, items}`), "changed" (`{resource}`: its items are not what they were),
   * "task" (the event of a finished task), "reset" (look at everything again), "state" (of the connection).
   */
  on(name, listener, signal) { this.addEventListener(name, ({ detail }) => listener(detail), { signal }); }

  /** Fetch what is under way, and follow from there. */
  async open() {
    const { items } = await this.#ask("GET", `api/jobs${query({ status: ACTIVE, limit: MAX_ACTIVE })}`);
    const newest = items.length ? items : (await this.#ask("GET", "api/jobs?limit=1")).items;
    this.subscription = this.#client.subscribe({ kind: "all" }, { since: newest[0]?.cursor ?? "now" });
    this.subscription.on("event", (event) => this.#hear(event));
    this.subscription.on("reset", () => this.#again());
    items.forEach((job) => this.take(job));
  }

  /** Everything is looked at again; jobs that ended meanwhile are fetched one by one. */
  async #again() {
    this.#since.clear();
    for (const id of this.jobs.keys()) this.#fetch(id);
    this.#tell("reset");
  }

  #hear(event) {
    if (event.kind === "task_completed") return this.#tell("task", event);
    if (event.kind === "changed") return this.#tell("changed", event);
    if (!event.job) return;
    if (event.data.items?.length) this.#tell("gone", { job: event.job, resource: event.resource, items: event.data.items });
    const known = this.jobs.get(event.job);
    this.#remember(event.job, event.seq);
    if (ENDS.has(event.kind)) this.#ending.add(event.job);
    if (event.kind === "progress" && known) {
      if (event.seq <= seqOf(known.cursor)) return;
      const { items, ...data } = event.data;
      this.#show({ ...known, ...data });
    } else if (event.source === "user" || known) this.#fetch(event.job);
  }

  /** What was heard last of a job: an answer that is older than that is not believed, also after its end. */
  #remember(id, seq) {
    this.#since.delete(id);
    this.#since.set(id, seq);
    if (this.#since.size > MAX_HEARD) this.#since.delete(this.#since.keys().next().value);
  }

  /** One request for a job at a time; what happened meanwhile asks again. */
  async #fetch(id) {
    if (this.#fetching.has(id)) return void this.#fetching.set(id, true);
    this.#fetching.set(id, false);
    try {
      this.take(await this.#ask("GET", at("jobs", id)));
    } catch (error) {
      if (error.status === 404) this.jobs.delete(id);
    }
    const again = this.#fetching.get(id);
    this.#fetching.delete(id);
    if (again) this.#fetch(id);
  }

  /** Take a job that was just fetched, by a start or a verb; one that is older than what was heard is asked for again. */
  take(job) {
    if (this.#isStale(job)) {
      this.#ending.add(job.id); // should it have ended before its start was answered, that is told to who started it
      return void this.#fetch(job.id);
    }
    const before = this.jobs.get(job.id);
    this.#show(job);
    if (!job.terminal) return;
    this.jobs.delete(job.id);
    if (this.#ending.delete(job.id) || before) this.#tell("ended", job);
  }

  /** Cursors of another epoch cannot be compared: the log has begun anew. */
  #isStale({ id, cursor }) {
    const sameLog = epochOf(cursor) === epochOf(this.subscription?.cursor ?? cursor);
    return sameLog && seqOf(cursor) < (this.#since.get(id) ?? 0);
  }

  /** How fast a job went, as far as this tab has seen it. */
  course(id) {
    if (!this.#courses.has(id)) this.#courses.set(id, new Samples());
    if (this.#courses.size > MAX_COURSES) this.#courses.delete(this.#courses.keys().next().value);
    return this.#courses.get(id);
  }

  #show(job) {
    this.jobs.set(job.id, job);
    this.course(job.id).add(job);
    this.#tell("job", job);
  }
}
