// The side of the page: the views that this caller may see, the resources with their counts, who is logged in and
// how the page is connected. In a narrow window it is a drawer.

import { at } from "./api.js";
import { atMostEvery, make, write } from "./dom.js";
import { icon } from "./icons.js";
import { menu } from "./menu.js";
import { count, text } from "./messages.js";
import { href } from "./router.js";
import { VIEWS } from "./views.js";

const RECOUNT_MS = 2_000;
const CONNECTED = { ws: "live", sse: "liveSse", poll: "livePoll" };
const WORDS = { connecting: "reconnecting", disconnected: "notConnected" };

/** Build the navigation; `show(route)` marks where the reader is, `logOut` and `help` are for its menu. */
export function navigation(page, { logOut, help }) {
  const resources = make("ul", { class: "nav-list", "aria-label": text("navResources") });
  const others = VIEWS.filter(({ name, role }) => name !== "resources" && page.can(role));
  const views = make("ul", { class: "nav-list" }, ...others.map((view) => entry(href(view.name), text(view.label), icon(view.icon))));
  const nav = make("div", { class: "side-lists" }, make("h2", { class: "nav-title", text: text("navResources") }), resources, make("h2", { class: "nav-title", text: text("navWork") }), views);
  const element = make("nav", { class: "side", id: "side", "aria-label": text("navigation") }, brand(), nav, make("div", { class: "side-foot" }, state(page), account(page, { logOut, help })));
  const counts = new Map();

  async function load() {
    const { items } = await page.ask("GET", "api/resources");
    counts.clear();
    resources.replaceChildren(...items.map(({ name, label }) => {
      const number = make("span", { class: "nav-count number" });
      counts.set(name, atMostEvery(RECOUNT_MS, () => recount(name, number)));
      return entry(href("resources", [name]), label, icon("table"), number);
    }));
    for (const recountOne of counts.values()) recountOne();
    return items;
  }

  async function recount(name, number) {
    const { counts: found } = await page.ask("GET", at("bulk", name, "info")).catch(() => ({}));
    if (found) write(number, found.total === null ? "" : count(found.total));
  }

  page.live.on("changed", ({ resource }) => counts.get(resource)?.());
  page.live.on("ended", ({ resource }) => counts.get(resource)?.());
  page.live.on("reset", () => counts.forEach((recountOne) => recountOne()));

  function show({ view, path }) {
    const here = href(view, view === "resources" ? path.slice(0, 1) : []);
    for (const link of nav.querySelectorAll("a")) {
      if (link.getAttribute("href") === here) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  return { element, load, show };
}

function entry(address, words, picture, more) {
  return make("li", {}, make("a", { href: address }, picture, make("span", { class: "nav-words", text: words }), more));
}

/** The name of the page, on the page itself and at the login. */
export function brand() {
  const picture = make("img", { src: new URL("icon.svg", import.meta.url), alt: "", width: 22, height: 22 });
  return make("p", { class: "brand" }, picture, text("title"));
}

function state(page) {
  const element = make("span", { class: "state", role: "status", "data-state": "connecting", text: text("reconnecting") });
  page.live.on("state", ({ to, transport }) => {
    element.dataset.state = to;
    write(element, text(WORDS[to] ?? CONNECTED[transport]));
  });
  return element;
}

function account(page, { logOut, help }) {
  const { me } = page;
  const who = [me.user, me.tenant, ...me.roles].filter(Boolean).join(" · ");
  const entries = () => [
    make("p", { class: "menu-note", text: who }),
    notifications(page),
    make("button", { type: "button", text: text("help"), on: { click: help } }),
    make("a", { href: page.url("docs"), text: text("api") }),
    make("a", { href: page.url("static/examples.html"), text: text("examples") }),
    make("button", { type: "button", text: text("logOut"), on: { click: logOut } }),
  ];
  const { element, button } = menu(text("account"), entries, { picture: "person", names: "quiet who", caption: me.user });
  button.setAttribute("aria-label", `${text("account")}: ${who}`);
  return element;
}

/** Browsers ask for this permission only after a click. */
function notifications(page) {
  if (!globalThis.Notification || Notification.permission !== "default") return null;
  const ask = async () => {
    const answer = await Notification.requestPermission();
    page.toast(text(answer === "granted" ? "notifyOn" : "notifyOff"));
  };
  return make("button", { type: "button", text: text("notify"), on: { click: ask } });
}
