// The page an operator opens: log in, then the frame with its views. This file only joins the parts; what a person
// can point at is a file of its own.

import "./elements.js";
import { asker } from "./api.js";
import { loginForm, startSession, takeCode } from "./login.js";
import { text } from "./messages.js";
import { buildPage } from "./page.js";
import { problemText } from "./problem.js";
import { shell } from "./shell.js";

const base = new URL("../", import.meta.url);
const app = document.getElementById("app");
const ask = asker(base, () => {});
let close = null;

function leave() {
  close?.();
  close = null;
}

function showLogin(complaint) {
  leave();
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  app.replaceChildren(loginForm((credential) => open(credential), complaint));
  app.querySelector("input").focus();
}

async function open(credential) {
  const me = credential ? await startSession(ask, credential) : await ask("GET", "api/me");
  leave();
  const loggedOut = () => { if (close) showLogin(text("loggedOut")); };
  const page = buildPage({ base, me, loggedOut });
  const frame = shell(page, {
    logOut: async () => {
      await page.attempt(() => ask("DELETE", "api/session"));
      showLogin("");
    },
  });
  let end = () => {};
  close = () => { end(); page.close(); };
  page.live.on("state", ({ to, code }) => { if (to === "disconnected" && code === 4501) loggedOut(); });
  app.replaceChildren(frame.element);
  end = await frame.open();
}

async function begin(credential) {
  try {
    await open(credential);
  } catch (error) {
    if (error.status === 401) showLogin(credential ? text("loginFailed") : "");
    else showLogin(problemText(error));
  }
}

addEventListener("hashchange", () => {
  const code = takeCode();
  if (code) begin({ code });
});
const code = takeCode();
begin(code && { code });
