// The frame of the page: navigation, the present view, the tray of jobs under way, toasts. It opens a view when the
// address changes, and closes the one before.

import { brand, navigation } from "./navigation.js";
import { make, write } from "./dom.js";
import { openHelp } from "./help.js";
import { icon } from "./icons.js";
import { text } from "./messages.js";
import { emptyNote, problemNote, tryAgainBelow } from "./problem.js";
import { go, href, readRoute } from "./router.js";
import { endings } from "./endings.js";
import { tray } from "./tray.js";
import { VIEWS } from "./views.js";

const PATIENCE_MS = 1_500;

/** Build the frame; `open()` fetches what is needed and shows the view of the address. */
export function shell(page, { logOut }) {
  const help = () => openHelp(page), over = new AbortController();
  const nav = navigation(page, { logOut, help });
  const main = make("main", { id: "main", tabindex: -1, "aria-busy": "true" });
  const burger = make("button", { type: "button", class: "quiet square", "aria-label": text("menu"), "aria-controls": "side", "aria-expanded": "false" }, icon("menu"));
  const shade = make("div", { class: "shade" });
  const drawer = (open) => {
    element.classList.toggle("open", open);
    burger.setAttribute("aria-expanded", String(open));
    if (open) nav.element.querySelector("a")?.focus();
  };
  const top = make("header", { class: "top" }, burger, brand());
  const skip = make("a", { class: "skip-link", href: "#main", text: text("skip"), on: { click: (event) => { event.preventDefault(); main.focus(); } } });
  const element = make("div", { class: "shell" }, skip, nav.element, shade, make("div", { class: "stage" }, top, offline(page, main, over.signal), main), tray(page), page.toasts, page.regions);
  burger.addEventListener("click", () => drawer(!element.classList.contains("open")));
  shade.addEventListener("click", () => drawer(false));
  element.addEventListener("keydown", ({ key }) => { if (key === "Escape" && element.classList.contains("open")) { drawer(false); burger.focus(); } });

  let resources = [], present = null, turn = 0;

  async function show() {
    const route = readRoute(), mine = ++turn;
    drawer(false);
    if (!route.view) return go(resources.length ? href("resources", [resources[0].name]) : href("jobs"), { replace: true });
    nav.show(route);
    const key = [route.view, ...route.path].join("/");
    if (present?.key === key && present.update) {
      present.update(route);
      main.dataset.at = location.hash;
      return;
    }
    const view = VIEWS.find(({ name, role }) => name === route.view && page.can(role));
    present?.leave.abort();
    present = null;
    if (!view) return place(noView());
    main.setAttribute("aria-busy", "true");
    for (const old of main.children) old.inert = true; // it belongs to the address before
    const leave = new AbortController();
    try {
      const { open } = await view.load();
      if (mine !== turn) return;
      const opened = await open({ page, route, signal: leave.signal, resources });
      if (mine !== turn) return leave.abort();
      present = { key, leave, update: opened.update };
      place(opened.element);
    } catch (error) {
      leave.abort();
      if (mine === turn) place(make("div", { class: "view" }, problemNote(error, show)));
    }
  }

  let first = true;
  function place(content) {
    main.replaceChildren(content);
    main.removeAttribute("aria-busy");
    main.scrollTop = 0;
    main.dataset.at = location.hash; // which address it is that stands here
    const heading = content.querySelector("h1");
    document.title = [heading?.textContent, text("title")].filter(Boolean).join(" · ");
    if (heading && !first) {
      heading.tabIndex = -1;
      heading.focus({ preventScroll: true });
    }
    first = false;
  }

  async function open() {
    addEventListener("hashchange", show, { signal: over.signal });
    page.shortcuts.add(everywhere(help), { signal: over.signal });
    endings(page, over.signal);
    [resources] = await Promise.all([nav.load(), page.live.open()]);
    await show();
    return () => { over.abort(); present?.leave.abort(); };
  }

  return { element, open };
}

function noView() {
  const start = make("a", { class: "button", href: "#/", text: text("toStart") });
  return make("div", { class: "view" }, make("h1", { text: text("noSuchView") }), emptyNote({ title: text("noSuchViewWhy"), action: start, picture: "search" }));
}

function everywhere(help) {
  const to = (view) => () => go(href(view));
  return [
    { keys: ["?"], text: "keyHelp", act: help },
    { keys: ["J"], text: "keyJobs", act: to("jobs") },
    { keys: ["T"], text: "keyTrash", act: to("trash") },
    { keys: ["R"], text: "keyResources", act: () => { location.hash = "#/"; } },
  ];
}

/** Say that what is shown may be old, when the server has been away for more than a moment. */
function offline(page, main, signal) {
  const words = make("p", { role: "alert" }), element = make("div", { class: "offline", hidden: true }, icon("warning"), words);
  let timer;
  const look = () => {
    clearTimeout(timer);
    if (page.live.state === "connected" && navigator.onLine !== false) {
      if (!element.hidden) page.announce(text("backOnline"));
      element.hidden = true;
      tryAgainBelow(main);
      return write(words, "");
    }
    timer = setTimeout(() => { element.hidden = false; write(words, text("offlineBanner")); }, PATIENCE_MS);
  };
  page.live.on("state", look);
  for (const name of ["online", "offline"]) addEventListener(name, look, { signal });
  return element;
}
