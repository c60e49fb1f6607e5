// API keys: who has one, when it was used last; a new one is shown once, an old one revoked for good.

import { at, query } from "./api.js";
import { listView, removed, rowButtons, showSecret } from "./caretaking.js";
import { openForm } from "./dialog.js";
import { make } from "./dom.js";
import { form } from "./form.js";
import { named, text } from "./messages.js";
import { button, code, distanceOf, instantOf } from "./parts.js";
import { emptyNote } from "./problem.js";

const ROLES = { viewer: "roleViewer", operator: "roleOperator", admin: "roleAdmin", owner: "roleOwner", service: "roleService" }, DAY_S = 86_400;

const roleOf = (role) => (ROLES[role] ? text(ROLES[role]) : role);

/** Open the keys. */
export function open({ page, signal }) {
  async function add() {
    const fields = form([
      { name: "user", label: text("user"), type: "text", required: true, hint: text("keyUserHint") },
      { name: "role", label: text("role"), type: "choice", required: true, value: "operator", choices: Object.keys(ROLES).filter((role) => page.can(role === "service" ? "owner" : role)).map((role) => [role, roleOf(role)]) },
      ...(page.me.tenant === null ? [{ name: "tenant", label: text("tenant"), type: "text", hint: text("wholeInstallation") }] : []),
      { name: "name", label: text("keyName"), type: "text", hint: text("keyNameHint") },
      { name: "days", label: text("keyDays"), type: "number", min: 1, max: 3650, hint: text("keyDaysHint") },
    ]);
    const submit = ({ days, ...body }) => page.ask("POST", "api/keys", days ? { ...body, ttl_s: days * DAY_S } : body);
    const made = await openForm({ title: text("keyAdd"), form: fields, action: text("keyAddYes"), submit, signal }).closed;
    if (!made) return;
    list.load();
    showSecret({ title: text("keyMade", { user: made.user }), secret: made.key, hint: text("keyMadeHint") });
  }

  const revoke = (row) => removed(page, list, { title: text("revokeTitle"), message: text("revokeMessage", { name: row.name ?? row.user }), action: text("revoke"), path: at("keys", row.id) });
  const { element, list } = listView({
    title: text("navKeys"), intro: text("keysIntro"), actions: [button(text("keyAdd"), add, { picture: "plus", names: "primary" })], signal,
    fetch: ({ limit, page: token }) => page.ask("GET", `api/keys${query({ limit, page: token })}`),
    table: {
      idOf: ({ id }) => id, nameOf: ({ name, user }) => name ?? user,
      dress: (tr, { revoked_at: gone }) => tr.classList.toggle("unfit", Boolean(gone)),
      columns: [
        { name: "user", label: text("user"), cell: ({ user, name }) => make("span", { dir: "auto" }, user, name ? make("span", { class: "muted", text: ` ${name}` }) : null) },
        { name: "role", label: text("role"), cell: ({ role, tenant }) => [named(role), tenant].filter(Boolean).join(" · ") },
        { name: "id", label: text("keyId"), priority: 3, cell: ({ id }) => code(id) },
        { name: "made", label: text("made"), priority: 3, cell: ({ created_at: made }) => instantOf(made) },
        { name: "used", label: text("lastUsed"), priority: 2, cell: ({ used_at: used }) => (used ? distanceOf(used) : text("never")) },
        { name: "ends", label: text("ends"), priority: 2, cell: ({ expires_at: ends, revoked_at: gone }) => (gone ? text("revoked") : ends ? distanceOf(ends) : text("never")) },
        { name: "acts", label: text("actions"), end: true, cell: (row) => rowButtons(!row.revoked_at && button(text("revoke"), () => revoke(row), { names: "danger" })) },
      ],
      empty: () => emptyNote({ title: text("noKeysTitle"), detail: text("noKeys"), picture: "key" }),
    },
  });
  return { element };
}
