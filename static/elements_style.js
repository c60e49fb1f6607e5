// The look of the elements, as one constructed style sheet: a strict Content-Security-Policy allows it, and a page
// themes it with the variables below. Light or dark follows the page's `color-scheme`.

const css = `
:host {
  --accent: var(--bulk-accent, light-dark(#17624a, #5cc79a));
  --danger: var(--bulk-danger, light-dark(#a8291d, #ff9486));
  --quiet: var(--bulk-quiet, light-dark(#8a8577, #8d897d));
  --ink: var(--bulk-ink, light-dark(#1f1d19, #efece4));
  --muted: var(--bulk-muted, light-dark(#5f5a4f, #aca697));
  --line: var(--bulk-line, light-dark(#d9d4c7, #3b382f));
  --surface: var(--bulk-surface, light-dark(#fffefb, #211f1a));
  --on-accent: var(--bulk-on-accent, light-dark(#ffffff, #14120e));
  --radius: var(--bulk-radius, 10px);
  display: block;
  color: var(--ink);
  font: var(--bulk-font, 15px/1.5 system-ui, sans-serif);
}
:host([hidden]) { display: none; }
* { box-sizing: border-box; }
p, h2, ul { margin: 0; padding: 0; }
ul { list-style: none; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
[hidden] { display: none !important; }

header { display: flex; gap: .25rem 1rem; align-items: baseline; justify-content: space-between; flex-wrap: wrap; }
.label { font-weight: 600; overflow-wrap: anywhere; }
.status { color: var(--muted); font-size: .87em; }
.status.good { color: var(--accent); }
.status.bad { color: var(--danger); }
.bar { display: flex; block-size: 8px; margin-block: .5rem .45rem; border-radius: 4px; overflow: hidden; background: var(--line); }
.bar i { inline-size: 0; transition: inline-size .25s linear; }
.done { background: var(--accent); }
.skip { background: var(--quiet); }
.fail { background: var(--danger); }
.bar.unknown::before {
  content: ""; inline-size: 30%; background: var(--accent); animation: wander 1.6s ease-in-out infinite alternate;
}
.bar.still .done { opacity: .55; }
@keyframes wander { to { margin-inline-start: 70%; } }
.figures { display: flex; flex-wrap: wrap; gap: 0 1rem; color: var(--muted); font-size: .87em; font-variant-numeric: tabular-nums; }
.figures .main { color: var(--ink); }
.figures .fails { color: var(--danger); }
.note { font-size: .87em; color: var(--muted); overflow-wrap: anywhere; }
.error { color: var(--danger); font-size: .9em; overflow-wrap: anywhere; }
.row { display: flex; flex-wrap: wrap; gap: .4rem .5rem; align-items: center; margin-block-start: .55rem; }
.row:empty { display: none; }
.groups { margin-block-start: .7rem; display: grid; gap: .5rem; font-size: .93em; border-inline-start: 2px solid var(--danger); padding-inline-start: .8rem; }
.groups li { display: flex; gap: .3rem 1rem; align-items: center; justify-content: space-between; }
.cause { display: grid; min-inline-size: 0; overflow-wrap: anywhere; }
.groups strong { color: var(--danger); font-variant-numeric: tabular-nums; }
.groups button { flex: none; }
.chart { margin: .5rem 0 0; position: relative; block-size: 3.5rem; }
.chart svg { inline-size: 100%; block-size: 100%; display: block; border-block-end: 1px solid var(--line); }
.chart figcaption { position: absolute; inset-block-start: 0; inset-inline-end: 0; font-size: .8em; color: var(--muted); font-variant-numeric: tabular-nums; background: color-mix(in srgb, var(--surface) 75%, transparent); padding-inline: .3rem; border-radius: 4px; }
.chart .area { fill: var(--accent); opacity: .14; }
.chart .curve { fill: none; stroke: var(--accent); stroke-width: 1.5; vector-effect: non-scaling-stroke; }
:host(:dir(rtl)) .chart svg { transform: scaleX(-1); }

button {
  font: inherit; font-size: .9em; color: var(--ink); background: transparent; cursor: pointer;
  border: 1px solid var(--line); border-radius: calc(var(--radius) * .7); padding: .28rem .75rem; min-block-size: 2.1rem;
}
select {
  font: inherit; font-size: .9em; color: var(--ink); background: var(--surface); min-block-size: 2.1rem;
  border: 1px solid var(--line); border-radius: calc(var(--radius) * .7); padding: .2rem .4rem; max-inline-size: 100%;
}
button:hover { border-color: var(--muted); }
button:disabled { cursor: default; opacity: .5; }
button.danger { color: var(--danger); border-color: color-mix(in srgb, var(--danger) 45%, transparent); }
button.go { color: var(--on-accent); background: var(--danger); border-color: var(--danger); font-weight: 600; }
button.link { border: 0; padding-inline: .2rem; text-decoration: underline; text-underline-offset: .2em; }
a { color: var(--accent); text-underline-offset: .2em; font-size: .9em; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }

dialog {
  inline-size: min(34rem, calc(100vw - 2rem)); max-block-size: calc(100dvh - 2rem); overflow: auto;
  color: var(--ink); background: var(--surface); border: 1px solid var(--line); border-radius: calc(var(--radius) * 1.3);
  padding: 1.25rem; box-shadow: 0 18px 60px #0005;
}
dialog::backdrop { background: #100e0a99; }
dialog h2 { font-size: 1.25em; line-height: 1.25; overflow-wrap: anywhere; }
dialog form { display: grid; gap: .7rem; }
dialog label { display: grid; gap: .3rem; }
dialog input {
  font: inherit; color: inherit; background: transparent; border: 1px solid var(--quiet);
  border-radius: calc(var(--radius) * .7); padding: .4rem .65rem; inline-size: 100%;
}
.facts { display: grid; gap: .35rem; }
.facts li, .facts p { overflow-wrap: anywhere; }
.warn { border-inline-start: 3px solid var(--danger); padding-inline-start: .6rem; }
.sample { font-size: .85em; color: var(--muted); border-block-start: 1px solid var(--line); padding-block-start: .5rem; }
.sample li { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
dialog .row { justify-content: flex-end; margin: 0; }
.after:not(:empty) { margin-block-start: .8rem; }
@media (prefers-reduced-motion: reduce) {
  .bar i { transition: none; }
  .bar.unknown::before { animation: none; inline-size: 100%; opacity: .4; }
}
`;

export const sheet = new CSSStyleSheet();
sheet.replaceSync(css);
