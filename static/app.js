// The page an operator opens: log in, see the resources, delete by filter, watch the jobs. This file only joins the
// parts; what a person can point at is a file of its own.

import "./elements.js";
import { connect } from "./bulkops.js";
import { make, write } from "./dom.js";
import { jobSection } from "./jobs.js";
import { loginForm, startSession, takeCode } from "./login.js";
import { text } from "./messages.js";
import { resourceSection } from "./resources.js";

const base = new URL("../", import.meta.url);
const app = document.getElementById("app");
const code = takeCode();
let client = null;

async function ask(method, path, body) {
  const headers = { Accept: "application/json", ...(body && { "Content-Type": "application/json" }) };
  const answer = await fetch(new URL(path, base), { method, headers, body: JSON.stringify(body) });
  const said = (await answer.text()) || "null";
  if (answer.ok) return JSON.parse(said);
  const problem = said.startsWith("{") ? JSON.parse(said) : {};
  if (answer.status === 401 && client) showLogin(text("loggedOut"));
  throw Object.assign(new Error(problem.detail ?? answer.statusText), { status: answer.status, code: problem.code });
}

function showLogin(complaint) {
  client?.disconnect();
  client = null;
  app.replaceChildren(loginForm(async (credential) => open(await startSession(ask, credential)), complaint));
  app.querySelector("input").focus();
}

async function logOut() {
  await ask("DELETE", "api/session", {});
  showLogin("");
}

const CONNECTED = { ws: "live", sse: "liveSse", poll: "livePoll" };
const WORDS = { connecting: "reconnecting", disconnected: "notConnected" };

function topBar(me) {
  const state = make("span", { class: "state", role: "status", "data-state": "connecting" });
  client.on("state", ({ to, code: closed, transport }) => {
    state.dataset.state = to;
    write(state, text(WORDS[to] ?? CONNECTED[transport]));
    if (to === "disconnected" && closed === 4501) showLogin(text("loggedOut"));
  });
  const brand = make("h1", { class: "brand" }, make("img", { src: new URL("icon.svg", import.meta.url), alt: "" }), text("title"));
  const who = make("span", { class: "who", text: [me.user, me.tenant, ...me.roles].filter(Boolean).join(" · ") });
  const links = make("nav", { "aria-label": text("title") }, who,
    make("a", { href: new URL("docs", base), text: text("api") }),
    make("a", { href: new URL("examples.html", import.meta.url), text: text("examples") }),
    make("button", { type: "button", text: text("logOut"), on: { click: logOut } }));
  return make("header", { class: "top" }, brand, state, links);
}

async function open(me) {
  client?.disconnect();
  client = connect({ url: base.href });
  const mine = client;
  const jobs = jobSection({ ask, client });
  const resources = resourceSection({ ask, client, me, started: jobs.reveal });
  const error = make("p", { class: "error", role: "alert" });
  const main = make("main", { tabindex: -1 }, make("div", { class: "columns" }, resources.section, jobs.section));
  app.replaceChildren(topBar(me), error, main);
  main.focus();

  const subscription = await jobs.load();
  if (mine !== client) return;
  subscription.on("event", ({ kind, resource, data }) => {
    if (kind === "changed" || "outcome" in data) resources.refresh(resource);
  });
  subscription.on("reset", () => { jobs.load(); resources.load(); });
  await resources.load();
}

async function begin(credential) {
  try {
    await open(credential ? await startSession(ask, credential) : await ask("GET", "api/me"));
  } catch (error) {
    if (error.status === 401) showLogin(credential ? text("loginFailed") : "");
    else showLogin(error.status ? error.message : text("offline"));
  }
}

addEventListener("hashchange", () => {
  const later = takeCode();
  if (later) begin({ code: later });
});
begin(code && { code });
