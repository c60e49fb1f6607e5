// The views of the page, in the order of its navigation: what they are called, who may see them, where their code
// is. A view's code is fetched when it is first opened.

export const VIEWS = [
  { name: "resources", label: "navResources", icon: "table", role: "viewer", load: () => import("./browse.js") },
  { name: "jobs", label: "navJobs", icon: "jobs", role: "viewer", load: () => import("./jobs.js") },
  { name: "trash", label: "navTrash", icon: "trash", role: "viewer", load: () => import("./trash.js") },
  { name: "schedules", label: "navSchedules", icon: "clock", role: "admin", load: () => import("./schedules.js") },
  { name: "queue", label: "navQueue", icon: "queue", role: "admin", load: () => import("./queue.js") },
  { name: "webhooks", label: "navWebhooks", icon: "hook", role: "admin", load: () => import("./webhooks.js") },
  { name: "keys", label: "navKeys", icon: "key", role: "admin", load: () => import("./keys.js") },
  { name: "audit", label: "navAudit", icon: "book", role: "admin", load: () => import("./audit.js") },
];

const RANKS = { viewer: 1, operator: 2, admin: 3, owner: 4 };

/** Say whether a caller holds `role` or a higher one. */
export const holds = (me, role) => me.roles.some((each) => (RANKS[each] ?? 0) >= RANKS[role]);
