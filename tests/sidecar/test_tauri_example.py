"""The Tauri example: its files agree with each other and the binary, its logic keeps a real sidecar, its page works.

Tauri itself is not compiled here. What needs it is two short Rust files; everything they decide is not in them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bulkops.package import find_triple
from bulkops.sidecar.options import read
from tests.sidecar.ground import ROWS, deleted, lay
from tests.sidecar.host import ORIGINS, TOKEN, Host, command
from tests.sidecar.webview import TAURI, UI, Webview, config, policy, view_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser

RUST = TAURI / "src-tauri"


def source(name: str) -> str:
    return (RUST / "src" / name).read_text()


def capability() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RUST / "capabilities" / "default.json").read_text())
    return found


def test_the_bundle_takes_the_binary_that_is_built_before_it() -> None:
    conf = config()
    assert conf["bundle"]["externalBin"] == ["binaries/bulkops"]
    build = conf["build"]["beforeBuildCommand"]
    assert build == conf["build"]["beforeDevCommand"]["script"]
    words = build.split()
    assert words[:3] == ["python", "-m", "bulkops.package"]
    # Both are run in the folder above src-tauri; externalBin and frontendDist are relative to src-tauri.
    assert words[words.index("--output") + 1] == "src-tauri/binaries"
    assert f"../{words[words.index('--client') + 1]}" == conf["build"]["frontendDist"]
    assert (RUST / conf["build"]["frontendDist"] / "index.html").resolve() == UI / "index.html"
    assert find_triple() is not None


def test_the_application_is_not_named_like_its_sidecar() -> None:
    manifest = tomllib.loads((RUST / "Cargo.toml").read_text())
    assert manifest["package"]["name"] != Path(config()["bundle"]["externalBin"][0]).name


def test_rust_starts_that_binary_with_arguments_the_sidecar_takes() -> None:
    rust = source("sidecar.rs")
    assert re.findall(r"\.sidecar\(\"(.+?)\"\)", rust) == ["bulkops"]
    arguments = re.findall(r"\.arg\((.+?)\)", rust)
    assert arguments == ['"sidecar"', '"--data-dir"', "data_dir"]
    assert read(["--data-dir", "/somewhere"]) is not None


def test_the_page_may_ask_and_listen_and_nothing_else() -> None:
    conf, granted = config(), capability()
    assert conf["app"]["security"]["capabilities"] == [granted["identifier"]]
    assert granted["windows"] == [window["label"] for window in conf["app"]["windows"]]
    assert granted["permissions"] == [
        "core:event:allow-listen",
        "core:event:allow-unlisten",
        "allow-bulkops-status",
    ]
    assert 'commands(&["bulkops_status"])' in (RUST / "build.rs").read_text()
    assert "generate_handler![sidecar::bulkops_status]" in source("main.rs")
    assert 'WINDOW: &str = "main"' in source("sidecar.rs")


def test_rust_and_page_use_the_same_names() -> None:
    page, rust = (UI / "sidecar.js").read_text(), source("sidecar.rs")
    assert re.findall(r"invoke\(\"(\w+)\"", page) == re.findall(r"pub fn (bulkops_\w+)", rust)
    assert re.findall(r"listen\(\"(\w+)\"", page) == re.findall(r"EVENT: &str = \"(\w+)\"", rust)
    states = set(re.findall(r"plain\(\"(\w+)\"\)", rust))
    assert states == set(re.findall(r"^  (\w+): \"", (UI / "app.js").read_text(), re.MULTILINE))


def test_the_origins_are_those_of_tauris_webviews() -> None:
    assert re.findall(r"\"(\w+://[\w.]+)\"", source("sidecar.rs")) == ORIGINS


def test_the_policy_lets_the_page_reach_loopback_and_no_other_machine() -> None:
    said = config()["app"]["security"]["csp"]
    reach = said["connect-src"].split()
    assert {"http://127.0.0.1:*", "ws://127.0.0.1:*"} <= set(reach)
    assert {word for word in reach if "127.0.0.1" not in word} == {"'self'", "ipc:", "http://ipc.localhost"}
    assert said["default-src"] == "'self'"
    assert "unsafe" not in policy()


def test_the_examples_config_is_one_that_bulkops_takes(tmp_path: Path) -> None:
    assert 'include_str!("../bulkops.toml")' in source("sidecar.rs")
    folder = lay(tmp_path / "data")
    shutil.copyfile(RUST / "bulkops.toml", folder / "bulkops.toml")
    check = [sys.executable, "-m", "bulkops", "--config", str(folder / "bulkops.toml"), "check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def rustc(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("rustc")
    if program is None:
        pytest.skip("there is no rustc")
    return subprocess.run(
        [program, "--edition", "2021", *arguments], capture_output=True, text=True, check=False
    )


def test_rusts_logic_holds_and_keeps_a_real_sidecar(tmp_path: Path) -> None:
    program = tmp_path / "example"
    made = rustc("-D", "warnings", "--test", str(RUST / "tests" / "real_sidecar.rs"), "-o", str(program))
    assert made.returncode == 0, made.stderr
    words = f"{sys.executable}\n-m\nbulkops"
    environment = {**os.environ, "BULKOPS_COMMAND": words, "TMPDIR": str(tmp_path)}
    run = subprocess.run([program], env=environment, capture_output=True, text=True, check=False, timeout=110)
    assert run.returncode == 0, run.stdout + run.stderr
    assert int(re.findall(r"(\d+) passed", run.stdout)[0]) >= 25
    assert not list(tmp_path.glob("bulkops-rust-*")), (
        "each test cleans up after itself, when it ran to its end"
    )


@pytest.mark.parametrize("name", ["main.rs", "../build.rs", "../tests/real_sidecar.rs"])
def test_rust_is_formatted(name: str) -> None:
    program = shutil.which("rustfmt")
    if program is None:
        pytest.skip("there is no rustfmt")
    check = [program, "--edition", "2021", "--check", str(RUST / "src" / name)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return lay(tmp_path / "data")


@pytest.fixture
def sidecar(folder: Path) -> Iterator[Host]:
    with Host(command(folder)) as host:
        yield host


@pytest.mark.browser
@pytest.mark.parametrize("origin", ["http://tauri.localhost", "https://tauri.localhost"])
def test_the_page_deletes_and_undoes(chromium: Browser, sidecar: Host, folder: Path, origin: str) -> None:
    with Webview(chromium, origin, view_of(sidecar.ready(), TOKEN)) as window:
        page = window.open()
        page.wait_for_selector("text=Ready")
        assert page.evaluate("stub.asked") == [["bulkops_status"]]
        assert window.choose("delete") == f"done: {ROWS} of {ROWS}"
        assert len(deleted(folder)) == ROWS
        assert window.choose("undo") == f"done: {ROWS} of {ROWS}"
        assert window.complaints == []


@pytest.mark.browser
def test_the_page_waits_for_a_sidecar_and_says_when_there_is_none(chromium: Browser, sidecar: Host) -> None:
    with Webview(chromium, "http://tauri.localhost", {"state": "starting"}) as window:
        page = window.open()
        page.wait_for_selector("text=Starting…")
        assert page.is_disabled("#delete")
        window.tell({"state": "failed", "message": "config: line 3"})
        page.wait_for_selector("text=cannot be started. config: line 3")
        assert page.is_disabled("#delete")
        window.tell(view_of(sidecar.ready(), TOKEN))
        assert window.choose("delete") == f"done: {ROWS} of {ROWS}"
        assert window.complaints == []


@pytest.mark.browser
def test_a_job_goes_on_in_the_page_when_the_sidecar_comes_back(chromium: Browser, tmp_path: Path) -> None:
    config_file = lay(tmp_path / "data") / "bulkops.toml"
    config_file.write_text(config_file.read_text().replace("throttle_ms = 30", "throttle_ms = 150"))
    folder = config_file.parent
    with Host(command(folder)) as first, Webview(chromium, "http://tauri.localhost", {}) as window:
        ready = first.ready()
        page = window.open()
        window.tell(view_of(ready, TOKEN))
        page.click("#delete:enabled")
        page.wait_for_selector("#progress:not([value='0']):visible")
        first.kill()
        first.exits()
        window.tell({"state": "restarting", "message": "exit: ended by a signal"})
        page.wait_for_selector("text=is started again")
        assert page.is_disabled("#delete")
        assert 0 < len(deleted(folder)) < ROWS
        with Host(command(folder)) as second:
            token = "an0ther-" + "y" * 40
            window.tell(view_of(second.ready(token=token), token))
            page.wait_for_selector(f"#result:text('done: {ROWS} of {ROWS}')")
            assert deleted(folder) == list(range(1, ROWS + 1))
