"""Where a sidecar's house stands: its options, the config and the host's wishes in, settings out.

Everything of ours is in the data directory, whatever the config says of that; the socket is at loopback,
whatever it says of that. Where the config lies in the data directory, the command has to come to the same
place by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from bulkops.configuration import from_dict, load
from bulkops.settings import ServerSettings, Settings
from bulkops.sidecar.options import Options
from bulkops.store.instance import is_data_dir

_NAME: Final = "bulkops.toml"
_DEFAULTS: Final = ServerSettings()


def settle(options: Options, origins: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Build the settings: the config's, within the data directory, at loopback, with the host's origins.

    Without a config in the data directory nothing is declared: the first start of an application comes
    before it has written one. One that was named has to be there.

    Raises:
        ConfigError: the config is wrong, or was named and is missing.
    """
    data_dir = options.data_dir.absolute()
    file = options.config or data_dir / _NAME
    undeclared = options.config is None and not file.exists()
    settings = from_dict({}, data_dir, environ) if undeclared else load(file, environ)
    server = settings.server
    # A config may lie where nobody may write, among an application's own files.
    unplaced = server.database == _DEFAULTS.database
    server = msgspec.structs.replace(
        server,
        data_dir=str(data_dir),
        database=str(data_dir / server.database) if unplaced else server.database,
        host="127.0.0.1",
        port=options.port,
        allowed_origins=[*server.allowed_origins, *origins],
    )
    return msgspec.structs.replace(settings, server=server)


def recognise(settings: Settings) -> Settings:
    """Let a config that lies in a sidecar's data directory mean that directory, as the sidecar itself does.

    So the command finds a sidecar that runs, and takes its lock where none does.
    """
    server = settings.server
    if server.data_dir != _DEFAULTS.data_dir or not is_data_dir(settings.base):
        return settings
    return msgspec.structs.replace(settings, server=msgspec.structs.replace(server, data_dir="."))
