// Drop-in elements: `<script type="module" src="/static/elements.js">`, then `<bulk-progress>` and `<bulk-action>`
// anywhere in the page. They find the server they came from, or the one their `url` attribute names.

import { BulkAction } from "./action.js";
import { BulkProgress } from "./progress.js";

if (!customElements.get("bulk-progress")) customElements.define("bulk-progress", BulkProgress);
if (!customElements.get("bulk-action")) customElements.define("bulk-action", BulkAction);

export { BulkAction, BulkProgress };
export { texts } from "./messages.js";
