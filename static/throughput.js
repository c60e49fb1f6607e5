// A small chart of how fast a job went: items a second over its time, from what its progress said while somebody
// looked on.

import { make, write } from "./dom.js";
import { rate, text } from "./messages.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300, HEIGHT = 48, MAX_SAMPLES = 240, BUCKETS = 60;

/** What is known of a job's course: `{at, processed}` in order, thinned when it becomes long. */
export class Samples {
  #all = [];

  /** Note where a job stands. */
  add({ processed, status }, at = performance.now()) {
    const last = this.#all.at(-1);
    if (last && processed <= last.processed && status === last.status) return;
    this.#all.push({ at, processed, status });
    if (this.#all.length > MAX_SAMPLES) this.#all = this.#all.filter((_, place) => place % 2 === 0 || place === this.#all.length - 1);
  }

  /** Items a second in equal stretches of time, oldest first; empty before there are three samples. */
  rates() {
    const all = this.#all, first = all[0], last = all.at(-1);
    if (all.length < 3) return [];
    const buckets = Math.min(BUCKETS, all.length - 1), step = (last.at - first.at) / buckets;
    let place = 0;
    const processedAt = (at) => {
      while (place < all.length - 2 && all[place + 1].at < at) place += 1;
      const [a, b] = [all[place], all[place + 1]];
      return a.processed + ((b.processed - a.processed) * (at - a.at)) / (b.at - a.at || 1);
    };
    const marks = Array.from({ length: buckets + 1 }, (_, n) => processedAt(first.at + n * step));
    return marks.slice(1).map((mark, n) => Math.max(0, (1000 * (mark - marks[n])) / (step || 1)));
  }
}

/** Build the chart; `show(samples)` draws it. */
export function throughputChart() {
  const area = document.createElementNS(SVG, "path"), line = document.createElementNS(SVG, "path"), svg = document.createElementNS(SVG, "svg");
  for (const [node, name] of [[area, "area"], [line, "curve"]]) node.setAttribute("class", name);
  for (const [name, value] of Object.entries({ viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" })) svg.setAttribute(name, value);
  svg.append(area, line);
  const peak = make("figcaption");
  const element = make("figure", { class: "chart", part: "chart" }, svg, peak);

  function show(samples) {
    const rates = samples.rates(), top = Math.max(...rates, 1);
    element.classList.toggle("waits", rates.length < 2);
    const words = rates.length < 2 ? text("chartWaits") : text("chartPeak", { peak: rate(Math.max(...rates)) });
    write(peak, words);
    svg.setAttribute("aria-label", `${text("throughput")}: ${words}`);
    if (rates.length < 2) return [area, line].forEach((each) => each.setAttribute("d", ""));
    const points = rates.map((each, n) => `${((n * WIDTH) / (rates.length - 1)).toFixed(1)} ${(HEIGHT - 2 - (each / top) * (HEIGHT - 20)).toFixed(1)}`);
    line.setAttribute("d", `M${points.join("L")}`);
    area.setAttribute("d", `M0 ${HEIGHT}L${points.join("L")}L${WIDTH} ${HEIGHT}Z`);
  }

  return { element, show };
}
