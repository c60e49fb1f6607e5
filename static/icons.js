// Small pictures beside words, drawn with strokes in the colour of the text; a picture never stands for a word
// that is not there for a screen reader too.

const SVG = "http://www.w3.org/2000/svg";
const PATHS = {
  search: "M10.5 17a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13ZM15.5 15.5 20 20",
  filter: "M4 6h16M7 12h10M10 18h4",
  close: "M6 6l12 12M18 6 6 18",
  check: "M5 12.5l4.5 4.5L19 7.5",
  more: "M6 12h.01M12 12h.01M18 12h.01",
  menu: "M4 7h16M4 12h16M4 17h16",
  table: "M4 5h16v14H4ZM4 10h16M10 10v9",
  jobs: "M4 6h3M4 12h3M4 18h3M10 6h10M10 12h10M10 18h10",
  trash: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v5M14 11v5",
  clock: "M12 20a8 8 0 1 0 0-16 8 8 0 0 0 0 16ZM12 8v4l3 2",
  queue: "M4 7h12M4 12h12M4 17h7M19 12v6M16.5 15.5 19 18l2.5-2.5",
  hook: "M9 8a3 3 0 1 1 4.5 2.6L10.5 16M7.5 13.5A3 3 0 1 0 10.5 17H17M16.5 14a3 3 0 1 1-2 5",
  key: "M8 15a4 4 0 1 0 0-8 4 4 0 0 0 0 8ZM12 11h9v3M17 11v3",
  book: "M5 4h11a3 3 0 0 1 3 3v13H8a3 3 0 0 1-3-3ZM9 9h6M9 13h6",
  play: "M8 5.5v13l10-6.5Z",
  pause: "M8 5v14M16 5v14",
  undo: "M8 5 4 9l4 4M4 9h10a5 5 0 0 1 0 10h-3",
  up: "M12 19V5M6 11l6-6 6 6",
  down: "M12 5v14M6 13l6 6 6-6",
  chevron: "M7 10l5 5 5-5",
  previous: "M14.5 6l-6 6 6 6",
  next: "M9.5 6l6 6-6 6",
  plus: "M12 5v14M5 12h14",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  warning: "M12 4 2.5 20h19ZM12 10v5M12 17.5v.01",
  help: "M12 20a8 8 0 1 0 0-16 8 8 0 0 0 0 16ZM9.8 10a2.3 2.3 0 1 1 3.3 2c-.8.4-1.1.9-1.1 1.7M12 16.3v.01",
  person: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8ZM5 20c.6-3.6 3.4-5 7-5s6.4 1.4 7 5",
  columns: "M4 5h16v14H4ZM9.3 5v14M14.6 5v14",
};

/** Draw the picture called `name`; it is hidden from screen readers. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg"), path = document.createElementNS(SVG, "path");
  for (const [key, value] of Object.entries({ viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true", focusable: "false" }))
    svg.setAttribute(key, value);
  if (name === "previous" || name === "next" || name === "undo") svg.classList.add("turns");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}
