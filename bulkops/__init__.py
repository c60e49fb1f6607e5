"""bulkops: durable bulk operations with live progress and a way back, in one process and one file.

A request goes from `web` through `service` into `store`: a row and its event in one transaction. The commit wakes
`workers`, whose `runner` acts on what `resources` holds, and rings the `hub`, at which `feed` reads the log for
`web.live`. `runtime` wires all of it; `cli`, `sidecar` and `embedding` are the other doors. Three rooms are
permissions: only `store` touches our database, only `resources` touches theirs, only `web` meets strangers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bulkops.batch import Batch as Batch
    from bulkops.batch import Item as Item
    from bulkops.embedding import Bulkops as Bulkops
    from bulkops.models import Caller as Caller
    from bulkops.resources.custom.authoring import Scope as Scope
    from bulkops.resources.custom.authoring import action as action

__version__ = "0.1.0"
__all__ = ["Batch", "Bulkops", "Caller", "Item", "Scope", "__version__", "action"]

_PLACES = {
    "Batch": "bulkops.batch",
    "Bulkops": "bulkops.embedding",
    "Caller": "bulkops.models",
    "Item": "bulkops.batch",
    "Scope": "bulkops.resources.custom.authoring",
    "action": "bulkops.resources.custom.authoring",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: `import bulkops` alone costs next to nothing."""
    from importlib import import_module

    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
