// A form from the schema of an action's options, or from fields that a view names: values out, complaints of the
// server beside the field that they are about.

import { make, write } from "./dom.js";
import { named, text } from "./messages.js";

const FIELD_TYPES = { boolean: "flag", integer: "number", number: "number" };
let ids = 0;

/**
 * Build a form. `fields`: `[{name, label, type, required?, value?, hint?, choices?, none?, min?, max?, fields?}]`, type one of
 * text, number, flag, choice, many, time, group (its `fields` are sent only when they are ticked). `pointer` is where
 * the values stand in the body: complaints about `/options/hard` go to the field `hard` of a form at "/options".
 */
export function form(fields, { pointer = "", changed = () => {} } = {}) {
  const rows = fields.map((field) => rowOf(field, `${pointer}/${field.name}`));
  const element = make("div", { class: "fields", on: { input: changed, change: changed } }, ...rows.map((row) => row.element));
  return {
    element, rows,
    focus: () => element.querySelector("input, select, textarea")?.focus(),
    values: () => valuesOf(rows),
    complain: (refusal) => complain(rows, refusal),
  };
}

/** Read the fields of a JSON schema's `properties`. */
export function fieldsOf(properties = {}) {
  return Object.entries(properties).map(([name, schema]) => {
    const types = [schema.type].flat(), type = types.find((each) => each !== "null");
    const field = { name, label: schema.title && schema.title !== name ? schema.title : named(name), value: schema.default, nullable: types.includes("null") };
    if (schema.enum) return { ...field, type: "choice", choices: schema.enum.map((value) => [String(value), named(String(value))]) };
    if (type === "object") return { ...field, type: "group", fields: fieldsOf(schema.properties) };
    if (type === "array") return { ...field, type: "many", choices: schema.items?.enum?.map((value) => [value, named(value)]) };
    return { ...field, type: FIELD_TYPES[type] ?? "text", min: schema.minimum, max: schema.maximum, whole: type === "integer" };
  });
}

function valuesOf(rows) {
  const given = rows.map((row) => [row.name, row.value()]);
  return Object.fromEntries(given.filter(([, value]) => value !== undefined));
}

/** Put each complaint of a 422 beside its field; returns false when one is about nothing here. */
function complain(rows, { problem }) {
  const all = rows.flatMap((row) => [row, ...(row.rows ?? [])]);
  for (const row of all) row.say("");
  const errors = problem?.errors ?? [];
  let first = null, lost = !errors.length;
  for (const { pointer, detail } of errors) {
    const row = all.findLast((each) => pointer === each.pointer || pointer.startsWith(`${each.pointer}/`))
      ?? all.find(({ name }) => pointer.endsWith(`/${name}`)); // a field of the body may become one of its options
    if (!row) lost = true;
    row?.say(detail.replace(/^./u, (letter) => letter.toUpperCase()));
    first ??= row;
  }
  first?.element.querySelector("input, select, textarea")?.focus();
  return !lost;
}

function rowOf(field, pointer) {
  const id = `field-${++ids}`;
  const error = make("p", { class: "error", id: `${id}-error` });
  const say = (words) => {
    write(error, words);
    const target = element.querySelector("input, select, textarea");
    target?.toggleAttribute("aria-invalid", Boolean(words));
    if (words) target?.setAttribute("aria-describedby", error.id);
  };
  const built = (BUILDERS[field.type] ?? BUILDERS.text)(field, id, pointer);
  const hint = field.hint ? make("p", { class: "hint", text: field.hint }) : null;
  const label = built.unlabelled ? null : make("label", { for: id, text: field.label });
  const element = make("div", { class: `field ${field.type}`, "data-field": field.name }, label, ...built.nodes, hint, error);
  return { element, say, pointer, name: field.name, value: built.value, rows: built.rows };
}

const textInput = ({ value = "", required, placeholder, secret, max }, id, type = "text", more = {}) =>
  make("input", { id, type: secret ? "password" : type, value, required, placeholder, maxlength: max, autocomplete: "off", spellcheck: "false", ...more });

const BUILDERS = {
  text(field, id) {
    const input = textInput(field, id);
    return { nodes: [input], value: () => (input.value === "" && !field.required ? undefined : input.value) };
  },
  number(field, id) {
    const { min, max, whole } = field;
    const input = textInput({ ...field, max: undefined }, id, "number", { min, max, step: whole === false ? "any" : 1, inputmode: "decimal" });
    return { nodes: [input], value: () => (input.value === "" ? undefined : Number(input.value)) };
  },
  time(field, id) {
    const input = textInput(field, id, "datetime-local");
    return { nodes: [input], value: () => (input.value ? new Date(input.value).toISOString() : undefined) };
  },
  flag({ value, label }, id) {
    const box = make("input", { id, type: "checkbox", checked: Boolean(value) });
    return { nodes: [make("label", { class: "line" }, box, label)], unlabelled: true, value: () => (box.checked ? true : value ? false : undefined) };
  },
  choice({ value, choices, required, none: unset = text("asUsual") }, id) {
    const none = required ? [] : [["", unset]];
    const select = make("select", { id }, ...[...none, ...choices].map(([name, words]) => make("option", { value: name, text: words })));
    if (value !== undefined && value !== null) select.value = value;
    return { nodes: [select], value: () => (select.value === "" ? undefined : select.value) };
  },
  many({ label, choices, value = [] }, id) {
    if (!choices) {
      const input = textInput({ value: value.join(", "), placeholder: text("withCommas") }, id);
      const list = () => input.value.split(",").map((each) => each.trim()).filter(Boolean);
      return { nodes: [make("label", { for: id, text: label }), input], unlabelled: true, value: () => (list().length ? list() : undefined) };
    }
    const boxes = choices.map(([name]) => make("input", { type: "checkbox", value: name, checked: value.includes(name) }));
    const lines = choices.map(([, words], place) => make("label", { class: "line" }, boxes[place], words));
    const group = make("fieldset", {}, make("legend", { text: label }), make("div", { class: "choices" }, ...lines));
    return { nodes: [group], unlabelled: true, value: () => boxes.filter((box) => box.checked).map((box) => box.value) };
  },
  group({ label, fields }, id, pointer) {
    const rows = fields.map((field) => tickedRow(field, pointer));
    const group = make("fieldset", {}, make("legend", { text: label }), ...rows.map((row) => row.element));
    return { nodes: [group], unlabelled: true, rows, value: () => (rows.some((row) => row.ticked()) ? valuesOf(rows) : undefined) };
  },
};

/** A field of a group counts when it is ticked: an empty text is a value there, for a column that may be null it is null. */
function tickedRow(field, pointer) {
  const row = rowOf({ ...field, required: true }, `${pointer}/${field.name}`);
  const tick = make("input", { type: "checkbox", "aria-label": text("change", { name: field.label }) });
  const input = row.element.querySelector("input, select");
  row.element.classList.add("ticked");
  row.element.prepend(tick);
  input.addEventListener("input", () => { tick.checked = true; });
  const value = () => (!tick.checked ? undefined : field.nullable && input.value === "" ? null : row.value());
  return { ...row, value, ticked: () => tick.checked };
}
