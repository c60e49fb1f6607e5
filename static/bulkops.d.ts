/** The client of bulkops: one ES module without dependencies, for browsers and Node (20 or newer). */

/** A place in the server's log, "<epoch>:<seq>". */
export type Cursor = string;
export type Transport = "ws" | "sse" | "poll";
export type State = "connecting" | "connected" | "disconnected";
export type Topic =
  | { kind: "all" }
  | { kind: "job"; job: string }
  | { kind: "task"; task_id: string }
  | { kind: "tenant" };
export type Status =
  | "scheduled" | "preparing" | "queued" | "running" | "pausing" | "paused" | "cancelling"
  | "completed" | "failed" | "cancelled";
export type Verb = "pause" | "resume" | "cancel" | "retry" | "undo";

export interface Options {
  /** Where bulkops is mounted; relative to the page, absolute in Node. Default "/". */
  url?: string;
  /** Get a single-use ticket from your own back end (it asks POST /api/tickets with the user's token). */
  getTicket?: () => Promise<string> | string;
  /** Keeps cursors over a reload: `sessionStorage`. Without one, following starts anew. */
  storage?: Pick<Storage, "getItem" | "setItem" | "removeItem">;
  /** What to follow with, best first. Default: ["ws", "sse", "poll"]. */
  transports?: Transport[];
  /** For Node: `import { WebSocket } from "ws"`. */
  WebSocket?: unknown;
  /** For Node: `import { EventSource } from "eventsource"`. */
  EventSource?: unknown;
  /** A fetch that adds your credential to each request; without `getTicket` it is used to get tickets too. */
  fetch?: typeof globalThis.fetch;
}

export interface Selection {
  ids?: (string | number)[];
  filter?: Record<string, unknown>;
  all?: true;
  selection_id?: string;
  exclude_ids?: (string | number)[];
}

/** The body of a start: a selection and how to act on it (POST /api/bulk/{resource}/{action}). */
export interface StartBody extends Selection {
  options?: Record<string, unknown>;
  confirm?: string;
  expected_count?: number;
  reason?: string;
  label?: string;
  tenant?: string;
  [more: string]: unknown;
}

export interface Counts {
  status: Status;
  total: number | null;
  processed: number;
  succeeded: number;
  failed: number;
  skipped: number;
}

/** What the last event of a job says; the job itself has all of it too. */
export interface Ending extends Counts {
  outcome: "ok" | "partial" | "none" | null;
  error: { code: string; message: string } | null;
  artifacts: unknown[];
  undo_until: string | null;
}

export interface Job extends Ending {
  id: string;
  resource: string;
  action: string;
  label: string;
  terminal: boolean;
  status_reason: { code: string; message: string } | null;
  allowed_actions: Verb[];
  percent: number | null;
  items_per_second: number | null;
  eta_seconds: number | null;
  links: { self: string; items: string; report: string; events: string };
  /** Follow from here: the job and its cursor were read together. */
  cursor: Cursor;
  [more: string]: unknown;
}

export interface BulkEvent {
  seq: number;
  kind: string;
  at: string;
  job: string | null;
  task_id: string | null;
  task_type: string | null;
  project: string | null;
  source: "user" | "maintenance";
  resource: string | null;
  action: string | null;
  data: Record<string, any>;
}

/** What the server refused: `code` is stable (see /docs), `problem` the whole document. */
export interface Refusal extends Error {
  status: number;
  code?: string;
  problem: Record<string, any>;
}

export interface Subscription extends AsyncIterable<BulkEvent> {
  /** Everything up to here was applied. */
  readonly cursor: Cursor;
  readonly topic: Topic;
  on(name: "event", listener: (event: BulkEvent) => void): () => void;
  /** Events are lost for good (the log was trimmed or restored): here is the state instead. */
  on(name: "reset", listener: (lost: { reason: string; state: any }) => void): () => void;
  on(name: "error", listener: (error: Refusal) => void): () => void;
  on(name: "end", listener: () => void): () => void;
  /** Resolves with how the job (or task) ended, also when it had ended before; rejects when it cannot be followed. */
  finished(): Promise<Ending>;
  unsubscribe(): void;
}

/** The verbs resolve with the job; `retry` and `undo` with the new one. */
export interface JobHandle {
  id: string;
  get(): Promise<Job>;
  pause(): Promise<Job>;
  resume(): Promise<Job>;
  cancel(body?: { force?: boolean }): Promise<Job>;
  retry(body?: { codes?: string[] }): Promise<Job>;
  undo(body?: { ids?: (string | number)[] }): Promise<Job>;
}

export interface StateChange {
  from: State;
  to: State;
  /** The WebSocket close code of the protocol, whatever the transport. */
  code?: number;
  reason?: string;
  transport: Transport;
}

export interface Client {
  on(name: "state", listener: (change: StateChange) => void): () => void;
  /** Start a job. Tried again under one Idempotency-Key for 60 s: a flaky network makes one job. `signal` ends the tries. */
  start(resource: string, action: string, body: StartBody, options?: { signal?: AbortSignal }): Promise<Job>;
  /** Follow a topic from `since` (default: where this tab's storage left off, else "now"). A job's ends with it. */
  subscribe(topic: Topic, options?: { since?: Cursor | "now" | "earliest" }): Subscription;
  job(id: string): JobHandle;
  /** Ask the API for anything else, with the same credential: request("GET", "api/resources"). */
  request(method: string, path: string, body?: unknown): Promise<any>;
  disconnect(): void;
}

export function connect(options?: Options): Client;
