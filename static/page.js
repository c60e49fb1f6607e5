// What every part of the page is given: how to ask, what goes on, who is reading, and ways to say something.

import { asker } from "./api.js";
import { announcer } from "./announce.js";
import { connect } from "./bulkops.js";
import { Live } from "./live.js";
import { problemText } from "./problem.js";
import { Shortcuts } from "./shortcuts.js";
import { toaster } from "./toast.js";
import { holds } from "./views.js";

/** Build the page of one caller; `loggedOut` is called when the session ends. */
export function buildPage({ base, me, loggedOut }) {
  const ask = asker(base, loggedOut);
  const client = connect({ url: base.href });
  const live = new Live({ ask, client });
  const { element: regions, announce } = announcer();
  const { element: toasts, toast } = toaster(announce);
  return {
    base, me, ask, client, live, announce, toast, regions, toasts,
    shortcuts: new Shortcuts(),
    can: (role) => holds(me, role),
    /** The address of something below the mount point, such as a report. */
    url: (path) => new URL(path.replace(/^\//, ""), base).href,
    /** Act, and say in a toast what was refused; resolves with null then. */
    async attempt(act) {
      try {
        return await act();
      } catch (error) {
        toast(problemText(error), { tone: "bad" });
        return null;
      }
    },
    close: () => client.disconnect(),
  };
}
