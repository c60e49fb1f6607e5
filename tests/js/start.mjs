// Starts one job on a server that may be away, and says which one it became. Environment: URL, KEY, BODY.

import { connect } from "../../static/bulkops.js";

const { URL: url, KEY, BODY } = process.env;
const client = connect({
  url, transports: ["poll"],
  fetch: (at, init = {}) => fetch(at, { ...init, headers: { ...init.headers, "X-API-Key": KEY } }),
});
process.stdout.write("trying\n");
const job = await client.start("receipts", "delete", JSON.parse(BODY));
process.stdout.write(`${JSON.stringify({ id: job.id, cursor: job.cursor })}\n`);
client.disconnect();
