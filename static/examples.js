// Makes the examples live: the newest job, the first resource that may be deleted from, the events of now.

import { connect } from "./bulkops.js";
import { make, write } from "./dom.js";

const MAX_LINES = 50;
const client = connect({ url: new URL("../", import.meta.url).href });
const at = (id) => document.getElementById(id);

async function begin() {
  const { items: resources } = await client.request("GET", "api/resources");
  const names = resources.filter(({ actions }) => actions.some(({ name }) => name === "delete")).map(({ name }) => name);
  const name = names.includes("receipts") ? "receipts" : names[0];
  if (name) {
    at("action").setAttribute("resource", name);
    for (const place of document.querySelectorAll(".resource-name")) write(place, name);
  } else at("action").remove();
  const { items: jobs } = await client.request("GET", "api/jobs?limit=1");
  for (const job of jobs) for (const place of ["progress", "themed"]) at(place).replaceChildren(make("bulk-progress", { job: job.id }));
}

at("action").addEventListener("bulk-finished", ({ detail: job }) => {
  write(at("finished"), `bulk-finished: ${job.succeeded} succeeded, ${job.failed} failed, ${job.skipped} skipped`);
});
client.subscribe({ kind: "all" }).on("event", ({ kind, job, data }) => {
  at("events").prepend(make("div", { text: [kind, job, data.processed ?? data.count].filter((part) => part !== undefined).join(" ") }));
  if (at("events").childElementCount > MAX_LINES) at("events").lastElementChild.remove();
});
begin().catch((error) => {
  if (error.status !== 401) throw error;
  client.disconnect();
  at("needs-login").hidden = false;
});
