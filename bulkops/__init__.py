"""bulkops: durable bulk operations with live progress and a way back, in one process and one file."""

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
