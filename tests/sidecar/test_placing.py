"""Where a sidecar's data stands, and that the command comes to the same place."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkops.configuration import load
from bulkops.errors import ConfigError
from bulkops.sidecar.options import Options
from bulkops.sidecar.placing import recognise, settle
from bulkops.store.instance import Marker, write_marker


def test_everything_of_ours_is_in_the_data_directory(tmp_path: Path) -> None:
    (tmp_path / "bulkops.toml").write_text(
        '[server]\nhost = "0.0.0.0"\nport = 80\ndata_dir = "elsewhere"\nallowed_origins = ["https://a.example"]\n'
    )
    settings = settle(Options(data_dir=tmp_path, port=7), ["tauri://localhost"], {})
    assert (settings.data_dir, settings.database) == (tmp_path, tmp_path / "bulkops.db")
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 7)
    assert settings.server.allowed_origins == ["https://a.example", "tauri://localhost"]


def test_a_database_that_was_placed_stays_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('[server]\ndatabase = "jobs.db"\n')
    settings = settle(Options(data_dir=tmp_path / "data", config=tmp_path / "c.toml"), [], {})
    assert settings.database == tmp_path / "jobs.db"
    (tmp_path / "c.toml").write_text("")
    settings = settle(Options(data_dir=tmp_path / "data", config=tmp_path / "c.toml"), [], {})
    assert settings.database == tmp_path / "data" / "bulkops.db"
    settings = settle(Options(data_dir=tmp_path), [], {"BULKOPS_DATABASE": "e.db", "BULKOPS_WORKERS": "2"})
    assert (settings.database, settings.server.workers) == (tmp_path / "e.db", 2)


def test_a_config_is_needed_only_where_it_was_named(tmp_path: Path) -> None:
    assert settle(Options(data_dir=tmp_path), [], {}).resources == {}
    with pytest.raises(ConfigError, match="no such file"):
        settle(Options(data_dir=tmp_path, config=tmp_path / "none.toml"), [], {})


def test_the_command_takes_a_sidecars_directory_for_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "bulkops.toml").write_text("")
    settings = load(tmp_path / "bulkops.toml", {})
    assert recognise(settings) == settings
    write_marker(tmp_path, Marker("an instance", 1))
    found = recognise(settings)
    assert (found.data_dir, found.database) == (tmp_path, tmp_path / "bulkops.db")
    (tmp_path / "bulkops.toml").write_text('[server]\ndata_dir = "mine"\n')
    assert recognise(load(tmp_path / "bulkops.toml", {})).data_dir == tmp_path / "mine"
