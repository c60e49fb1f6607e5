// A button that opens a small list of choices beside itself: arrows move, Escape closes, the button has the keyboard
// again afterwards.

import { make } from "./dom.js";
import { icon } from "./icons.js";

let menus = 0;

/** Build `{button, panel}`; `entries()` is asked at each opening for nodes, buttons and links among them close it. */
export function menu(label, entries, { picture, names = "", caption = label } = {}) {
  const id = `menu-${++menus}`;
  const panel = make("div", { id, class: "menu", popover: "auto", role: "group", "aria-label": label });
  const button = make("button", { type: "button", class: names, popovertarget: id, "aria-haspopup": "true", "aria-label": caption === null ? label : null },
    picture ? icon(picture) : null, caption, caption === null ? null : icon("chevron"));
  panel.addEventListener("beforetoggle", ({ newState }) => {
    if (newState === "open") panel.replaceChildren(...entries());
  });
  panel.addEventListener("toggle", ({ newState }) => {
    button.setAttribute("aria-expanded", String(newState === "open"));
    if (newState !== "open") return;
    place(panel, button);
    panel.querySelector("a, button, input, select")?.focus();
  });
  panel.addEventListener("click", ({ target }) => { if (target.closest("a, button:not([data-stay])")) panel.hidePopover(); });
  panel.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || event.target.matches("select, input:not([type=checkbox])")) return;
    event.preventDefault();
    const all = [...panel.querySelectorAll("a, button, input, select")];
    all[(all.indexOf(document.activeElement) + step + all.length) % all.length]?.focus();
  });
  button.setAttribute("aria-expanded", "false");
  return { button, panel, element: make("span", { class: "menu-place" }, button, panel) };
}

function place(panel, button) {
  const at = button.getBoundingClientRect(), size = panel.getBoundingClientRect(), room = 8;
  const rtl = getComputedStyle(button).direction === "rtl";
  const wanted = rtl ? at.right - size.width : at.left;
  const left = Math.max(room, Math.min(wanted, innerWidth - size.width - room));
  const below = at.bottom + 4 + size.height <= innerHeight - room || at.top < size.height;
  panel.style.left = `${left}px`;
  panel.style.top = `${below ? at.bottom + 4 : at.top - size.height - 4}px`;
}
