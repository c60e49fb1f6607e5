"""What each action does to a table's rows, as conditions and assignments; no connection in sight.

An action exists where the columns for it do. ``states`` lists why a row may be unfit, first match wins.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from bulkops.errors import ConfigError, invalid_field
from bulkops.resources.schema import Column, Table, quote
from bulkops.resources.table.filters import Condition, TimeFormat, both
from bulkops.resources.table.layouts import export_options
from bulkops.settings import ChildSettings, ResourceSettings

_TIMESTAMP_NAME: Final = re.compile(r"(_at|_on|_ts|_time|_date|At|On)$")
#: Actions of tables; the order is that of lists.
NAMES: Final = ("delete", "restore", "purge", "close", "archive", "set", "export")


class Unfit(msgspec.Struct, frozen=True):
    """A reason why a row is not acted on: the code, what to say, and which rows it is true of."""

    code: str
    reason: str
    condition: Condition


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """One action with its options, bound to a table.

    ``assign``: the columns an update sets (empty: rows are deleted). ``prior``: what those columns held
    where no image says otherwise. ``remember``: columns whose earlier values must be kept in images.
    ``reads``: nothing is done to the rows.
    """

    name: str
    assign: dict[str, Any] = {}
    prior: dict[str, Any] = {}
    remember: list[str] = []
    final: bool = False
    reads: bool = False
    hides: bool = False
    visible: Condition = Condition("1", {})
    states: list[Unfit] = []
    children: list[ChildSettings] = []

    @property
    def deletes(self) -> bool:
        return not self.assign and not self.reads

    @property
    def reversible(self) -> bool:
        return not self.final and not self.reads

    def fit(self) -> Condition:
        """Return the condition of rows that may be acted on."""
        return both(self.visible, *(negate(state.condition) for state in self.states))


def negate(condition: Condition) -> Condition:
    """Return the opposite; a condition that is NULL counts as not true."""
    return Condition(f"NOT coalesce(({condition.sql}), 0)", condition.params)


class SoftDelete(msgspec.Struct, frozen=True):
    """The column that says a row is deleted: a flag, or the time it happened."""

    column: Column
    timestamp: bool

    @classmethod
    def of(cls, table: Table, name: str) -> SoftDelete:
        """Judge by name and type: ``deleted_at`` is a time, ``is_deleted`` a flag."""
        column = table.column(name)
        named = _TIMESTAMP_NAME.search(name) is not None
        declared = column.declared.upper()
        return cls(column, named or "DATE" in declared or "TIME" in declared)

    @property
    def sql(self) -> str:
        return f"t.{quote(self.column.name)}"

    def deleted(self) -> Condition:
        if self.timestamp:
            return Condition(f"{self.sql} IS NOT NULL", {})
        if self.column.affinity == "text":
            return Condition(f"{self.sql} NOT IN ('', '0', 'false', 'no')", {})
        return Condition(f"{self.sql} <> 0", {})

    def live(self) -> Condition:
        if self.timestamp:
            return Condition(f"{self.sql} IS NULL", {})
        if self.column.affinity == "text":
            return Condition(f"({self.sql} IS NULL OR {self.sql} IN ('', '0', 'false', 'no'))", {})
        if self.column.notnull:
            return Condition(f"{self.sql} = 0", {})
        return Condition(f"({self.sql} IS NULL OR {self.sql} = 0)", {})

    def mark(self, stamp: str | int) -> Any:
        """Return what a deleted row holds."""
        if self.timestamp:
            return stamp
        return "1" if self.column.affinity == "text" else 1

    def unmarked(self) -> Any:
        """Return what a live row usually holds."""
        if self.timestamp:
            return None
        return "0" if self.column.affinity == "text" else 0


class Actions:
    """The actions of one table, made from its settings."""

    def __init__(self, name: str, settings: ResourceSettings, table: Table) -> None:
        """Check every configured column against the table.

        Raises:
            ConfigError: a column does not exist.
        """
        self._settings = settings
        self._table = table
        self._where = f"resources.{name}"
        self.soft = self._soft_delete()
        self._busy = self._busy_state()
        self._protected = self._protected_state()

    def _column(self, key: str, name: str) -> Column:
        try:
            return self._table.column(name)
        except LookupError as error:
            raise ConfigError(f"{self._where}.{key}", str(error.args[0])) from error

    def _soft_delete(self) -> SoftDelete | None:
        if self._settings.soft_delete is None:
            return None
        self._column("soft_delete", self._settings.soft_delete)
        return SoftDelete.of(self._table, self._settings.soft_delete)

    def _busy_state(self) -> list[Unfit]:
        status = self._settings.status
        if status is None:
            return []
        column = self._column("status.column", status.column)
        if not status.busy:
            return []
        names = [f"busy{index}" for index in range(len(status.busy))]
        condition = Condition(
            f"t.{quote(column.name)} IN ({', '.join(':' + name for name in names)})",
            dict(zip(names, status.busy, strict=True)),
        )
        words = " or ".join(status.busy)
        return [Unfit("INELIGIBLE", f"its {column.name} is {words}", condition)]

    def _protected_state(self) -> list[Unfit]:
        states = []
        for index, (name, value) in enumerate(self._settings.protect.items()):
            column = self._column(f"protect.{name}", name)
            condition = Condition(f"t.{quote(column.name)} IS :protect{index}", {f"protect{index}": value})
            states.append(Unfit("PROTECTED", f"it is protected: {name} is {value!r}", condition))
        return states

    def names(self) -> list[str]:
        """List the actions that this table's columns allow; a view is read-only."""
        if self._table.kind != "table":
            return ["export"] if self._table.kind == "view" else []
        status = self._settings.status
        there = {
            "delete": True,
            "restore": self.soft is not None,
            "purge": self.soft is not None,
            "close": status is not None and status.closed is not None,
            "archive": status is not None and status.archived is not None,
            "set": bool(self._settings.set),
            "export": True,
        }
        return [name for name in NAMES if there[name]]

    def options(self, name: str) -> dict[str, dict[str, Any]]:
        """Return the JSON schema of an action's options, by name."""
        optional = [child.table for child in self._settings.children if child.optional]
        schemas: dict[str, dict[str, Any]] = {}
        if name == "delete":
            schemas["hard"] = {"type": "boolean", "default": False, "title": "Delete for good, without undo"}
        if name in ("delete", "purge") and optional:
            schemas["cascade"] = {
                "type": "boolean",
                "default": False,
                "title": f"Take along: {', '.join(optional)}",
            }
        if name == "archive":
            schemas["compress"] = {"type": "boolean", "default": True, "title": "Compress the archive"}
        if name == "export":
            schemas |= export_options(self._settings.children)
        if name == "set":
            schemas["set"] = {
                "type": "object",
                "minProperties": 1,
                "additionalProperties": False,
                "properties": {column: self._value_schema(column) for column in self._settings.set},
            }
        return schemas

    def _value_schema(self, name: str) -> dict[str, Any]:
        affinity = self._column("set", name).affinity
        kinds = {"integer": "integer", "real": "number", "numeric": ["number", "string"], "text": "string"}
        kind = kinds.get(affinity, "string")
        return {"type": [*(kind if isinstance(kind, list) else [kind]), "null"], "title": name}

    def is_final(self, name: str, options: dict[str, Any]) -> bool:
        """Say whether an action cannot be undone."""
        return name == "purge" or bool(options.get("hard"))

    def build(
        self, name: str, options: dict[str, Any], *, stamp_ms: int, time_format: TimeFormat | None
    ) -> Act:
        """Bind an action to its options.

        Raises:
            Refusal: (422) an option is unknown or of the wrong kind.
        """
        self._check_options(name, options)
        if name == "delete":
            return self._delete(options, stamp_ms, time_format)
        if name == "restore":
            return self._restore()
        if name == "purge":
            return self._purge(options)
        if name == "set":
            return self._set(options)
        if name == "export":
            return self._export(options)
        return self._status(name)

    def guarded(self, name: str) -> Act:
        """Build an act that does nothing here: it says which rows somebody else's code may act on."""
        return Act(name=name, final=True, visible=self._live(), states=self._unfit())

    def _check_options(self, name: str, options: dict[str, Any]) -> None:
        schemas = self.options(name)
        for option, value in options.items():
            if option not in schemas:
                known = ", ".join(schemas) or "none"
                raise invalid_field(f"/options/{option}", f"{name} has no such option; it has: {known}")
            if schemas[option]["type"] == "boolean" and not isinstance(value, bool):
                raise invalid_field(f"/options/{option}", "true or false is needed")
            allowed = schemas[option].get("enum")
            if allowed is not None and value not in allowed:
                raise invalid_field(f"/options/{option}", f"one of these is needed: {', '.join(allowed)}")

    def _children(self, options: dict[str, Any]) -> list[ChildSettings]:
        return [child for child in self._settings.children if not child.optional or options.get("cascade")]

    def _live(self) -> Condition:
        return self.soft.live() if self.soft else Condition("1", {})

    def _unfit(self, *more: Unfit) -> list[Unfit]:
        return [*self._protected, *self._busy, *more]

    def _delete(self, options: dict[str, Any], stamp_ms: int, time_format: TimeFormat | None) -> Act:
        soft = self.soft
        children = self._children(options)
        if options.get("hard"):
            return Act(name="delete", final=True, hides=True, states=self._unfit(), children=children)
        if soft is None:
            return Act(name="delete", hides=True, states=self._unfit(), children=children)
        name = soft.column.name
        stamp = (time_format or TimeFormat("sql")).write(stamp_ms)
        return Act(
            name="delete",
            assign={name: soft.mark(stamp)},
            prior={name: soft.unmarked()},
            hides=True,
            visible=soft.live(),
            states=self._unfit(Unfit("ALREADY_DONE", "it is deleted already", soft.deleted())),
            children=children,
        )

    def _restore(self) -> Act:
        soft = self._need_soft()
        name = soft.column.name
        return Act(
            name="restore",
            assign={name: soft.unmarked()},
            remember=[name],
            visible=soft.deleted(),
            states=self._unfit(Unfit("ALREADY_DONE", "it is not deleted", soft.live())),
        )

    def _purge(self, options: dict[str, Any]) -> Act:
        soft = self._need_soft()
        return Act(
            name="purge",
            final=True,
            hides=True,
            visible=soft.deleted(),
            states=self._unfit(
                Unfit("INELIGIBLE", "it is not deleted; only deleted ones are purged", soft.live())
            ),
            children=self._children(options),
        )

    def _need_soft(self) -> SoftDelete:
        assert self.soft is not None
        return self.soft

    def _export(self, options: dict[str, Any]) -> Act:
        # A busy row is still being written: half of it would pass for the whole.
        return Act(
            name="export",
            reads=True,
            visible=self._live(),
            states=self._unfit(),
            children=list(self._settings.children) if options.get("include_details") else [],
        )

    def _status(self, name: str) -> Act:
        status = self._settings.status
        assert status is not None
        word = status.closed if name == "close" else status.archived
        return self._assigning(name, {status.column: word}, f"it is {word} already")

    def _set(self, options: dict[str, Any]) -> Act:
        values = options.get("set")
        if not isinstance(values, dict) or not values:
            raise invalid_field("/options/set", "columns and their new values are needed")
        for column, value in values.items():
            if column not in self._settings.set:
                allowed = ", ".join(self._settings.set)
                raise invalid_field(f"/options/set/{column}", f"only these may be set: {allowed}")
            if isinstance(value, (dict, list)):
                raise invalid_field(f"/options/set/{column}", "a text, number, boolean or null is needed")
        plain = {column: int(value) if isinstance(value, bool) else value for column, value in values.items()}
        return self._assigning("set", plain, "it holds these values already")

    def _assigning(self, name: str, assign: dict[str, Any], done: str) -> Act:
        already = both(
            *(
                Condition(f"t.{quote(column)} IS :set{index}", {f"set{index}": value})
                for index, (column, value) in enumerate(assign.items())
            )
        )
        return Act(
            name=name,
            assign=assign,
            remember=list(assign),
            visible=self._live(),
            states=self._unfit(Unfit("ALREADY_DONE", done, already)),
        )
