"""The one binary: its name, what is in it, that all of it starts, and that it dies with its host and leaves nothing.

It is built once for this module, as one file and as a folder, by the very command the README gives.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from click.testing import CliRunner

from bulkops import __version__, package
from bulkops.binary import unpacked_folder
from bulkops.cli import main as command_line
from tests.photos.studio import Studio, samples
from tests.sidecar.ground import ROWS, ask, deleted, ended_exactly, is_free, lay, start_job
from tests.sidecar.host import ROOT, TOKEN, FarHost, Host, until
from tests.sidecar.webview import CLIENT, Webview, view_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser

RUSTC = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\nhost: x86_64-pc-windows-msvc\nrelease: 1.95.0\n"


def told(*words: str) -> tuple[int, str]:
    """Run the command in this process; returns the exit code and what it said."""
    done = CliRunner().invoke(package.main, words)
    return done.exit_code, done.output


# ---------------------------------------------------------------- names and refusals


def test_rustc_names_the_triple_it_builds_for() -> None:
    assert package.triple_of_rustc(RUSTC) == "x86_64-pc-windows-msvc"
    assert package.triple_of_rustc("rustc 1.95.0\n") is None
    assert package.triple_of_rustc("") is None


@pytest.mark.parametrize(
    ("system", "machine", "libc", "triple"),
    [
        ("Linux", "x86_64", "glibc", "x86_64-unknown-linux-gnu"),
        ("Linux", "aarch64", "glibc", "aarch64-unknown-linux-gnu"),
        ("Linux", "x86_64", "", "x86_64-unknown-linux-musl"),
        ("Linux", "armv7l", "glibc", "armv7-unknown-linux-gnueabihf"),
        ("Linux", "riscv64", "glibc", "riscv64gc-unknown-linux-gnu"),
        ("Darwin", "arm64", "", "aarch64-apple-darwin"),
        ("Darwin", "x86_64", "", "x86_64-apple-darwin"),
        ("Windows", "AMD64", "", "x86_64-pc-windows-msvc"),
        ("Windows", "ARM64", "", "aarch64-pc-windows-msvc"),
        ("Windows", "x86", "", "i686-pc-windows-msvc"),
        ("Linux", "s390x", "glibc", None),
        ("Java", "x86_64", "", None),
    ],
)
def test_without_rustc_the_platform_names_the_triple(
    system: str, machine: str, libc: str, triple: str | None
) -> None:
    assert package.triple_of_platform(system, machine, libc) == triple


@pytest.mark.parametrize(
    "target", ["x86_64-pc-windows-msvc", "aarch64-apple-darwin", "linux", "../x-y", "-a-b"]
)
def test_a_target_that_would_lie_is_refused(target: str) -> None:
    if sys.platform != "linux":
        pytest.skip("the targets are foreign to Linux")
    code, said = told(f"--target={target}")
    assert code == 2
    assert target in said


@pytest.mark.parametrize("module", ["no_such_module", "no_such.module", "click.nothing", ".relative", ""])
def test_a_module_that_is_not_there_is_refused(module: str) -> None:
    code, said = told("--include-module", module)
    assert code == 2
    assert "there is no module" in said


def test_without_pyinstaller_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "PyInstaller", None)
    code, said = told("--output", str(tmp_path / "out"))
    assert code == 1
    assert "bulkops[sidecar]" in said
    assert not (tmp_path / "out").exists()


def test_nothing_of_ours_needs_what_is_left_out() -> None:
    blocked = f"import sys\nfor name in {package.EXCLUDED!r}: sys.modules[name] = None\n"
    load = (
        "import importlib, pkgutil, bulkops, httpx, prometheus_client, rich.console, rich.progress, rich.table\n"
        "for each in pkgutil.walk_packages(bulkops.__path__, 'bulkops.'):\n"
        "    if each.name not in sys.modules: importlib.import_module(each.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", blocked + load], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_only_a_folder_that_was_unpacked_is_ever_removed() -> None:
    assert unpacked_folder("/tmp/_MEIabc123") == Path("/tmp/_MEIabc123")
    assert unpacked_folder("/opt/bulkops/_internal") is None
    assert unpacked_folder(None) is None


# ---------------------------------------------------------------- the binary


def build(folder: Path, *options: str) -> Path:
    pytest.importorskip("PyInstaller", reason="PyInstaller is not installed")
    if sys.platform == "linux" and shutil.which("objcopy") is None:
        pytest.skip("PyInstaller needs objcopy (binutils)")
    call = [sys.executable, "-m", "bulkops.package", "--output", str(folder), *options]
    done = subprocess.run(call, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def onefile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onefile")
    return build(folder, "--client", str(folder / "ui"))


@pytest.fixture(scope="module")
def onedir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder, with a module of an application's own and for a triple of its choice."""
    folder = tmp_path_factory.mktemp("onedir")
    (folder / "our_storage.py").write_text("class Slow:\n    def delete(self, keys):\n        return {}\n")
    return build(folder, "--onedir", "--target", "x86_64-acme-linux-gnu", "--include-module", "our_storage")


def run(binary: Path, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([binary, *words], capture_output=True, text=True, check=False, cwd=cwd, timeout=60)


pytestmark = pytest.mark.timeout(180)
packaged = pytest.mark.package


@packaged
def test_one_file_is_named_as_tauri_looks_for_it_and_brings_the_client_along(onefile: Path) -> None:
    assert onefile.name == f"bulkops-{package.find_triple()}"
    assert sorted(path.name for path in onefile.parent.iterdir()) == [onefile.name, "ui"]
    for name in package.CLIENT:
        assert (onefile.parent / "ui" / name).read_bytes() == (CLIENT / name).read_bytes()
    assert onefile.stat().st_size < 40_000_000


@packaged
def test_a_target_names_the_folder_and_the_binary_in_it(onedir: Path) -> None:
    assert onedir.name == onedir.parent.name == "bulkops-x86_64-acme-linux-gnu"


@packaged
def test_every_command_is_in_it(onedir: Path) -> None:
    assert run(onedir, "--version").stdout.strip() == f"bulkops, version {__version__}"
    assert isinstance(command_line, click.Group)
    for name in command_line.list_commands(click.Context(command_line)):
        done = run(onedir, name, "--help")
        assert done.returncode == 0, done.stderr


@packaged
def test_a_module_of_the_applications_own_is_in_it(onedir: Path, tmp_path: Path) -> None:
    folder = lay(tmp_path / "data")
    with (folder / "bulkops.toml").open("a") as config:
        config.write(
            '[resources.pictures]\nkind = "table"\ndatabase = "app.db"\ntable = "notes"\nid = "id"\n'
        )
        config.write('file = "title"\nstorage = "our_storage:Slow"\n')
    done = run(onedir, "check", cwd=folder)
    assert "0 errors" in done.stdout + done.stderr
    assert "our_storage" not in done.stdout + done.stderr
    # From source, where that module cannot be found, the same check says so.
    source = [sys.executable, "-m", "bulkops", "check"]
    other = subprocess.run(source, capture_output=True, text=True, cwd=folder, check=False)
    assert "our_storage" in other.stdout + other.stderr


@packaged
def test_pictures_are_made_in_it(onedir: Path, tmp_path: Path) -> None:
    studio = Studio(tmp_path)
    photo = samples()[0]
    studio.put("summer", photo.name, photo)
    with Host(sidecar(onedir, tmp_path)) as host:
        ready = host.ready()
        status, _, task = ask(ready, "POST", "/api/tasks/upload_processing", {"project": "summer"})
        assert status == 202, task
        until(lambda: ask(ready, "GET", f"/api/tasks/{task['id']}")[2]["status"] == "completed", within_s=60)
    assert studio.names("summer", ".thumb") == [photo.name]


@packaged
def test_its_commands_find_its_sidecar_and_draw_a_bar_and_a_table(onedir: Path, tmp_path: Path) -> None:
    folder = lay(tmp_path / "data")
    with Host([str(onedir), "sidecar", "--data-dir", str(folder)]) as host:
        job = start_job(host.ready())
        words = ["--config", str(folder / "bulkops.toml")]
        shown = run(onedir, *words, "watch", job, cwd=folder)
        assert shown.returncode == 0, shown.stderr
        assert job in run(onedir, *words, "jobs").stdout


@packaged
def test_the_page_is_in_it(onedir: Path, tmp_path: Path) -> None:
    (tmp_path / "bulkops.toml").write_text("[server]\n")
    call = [str(onedir), "serve", "--json", "--port", "0"]
    with subprocess.Popen(call, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout is not None
        url = server.stdout.readline().decode().partition('"url":"')[2].partition('"')[0]
        for path, file in [("/", "index.html"), ("/static/bulkops.js", "bulkops.js")]:
            with urllib.request.urlopen(url + path, timeout=10) as answer:
                assert answer.read() == (ROOT / "static" / file).read_bytes()
        server.terminate()
        assert server.wait(15) == 0


#: What the stack below us needs to load on a machine with nothing else to do; a busy one is slower for all.
QUIET_S = 0.15
LOAD = "import aiosqlite, uvicorn, starlette.applications"


def seconds_to_load() -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", LOAD], check=True)
    return time.monotonic() - began


def seconds_to_ready(binary: Path, folder: Path) -> float:
    with Host(sidecar(binary, folder)) as host:
        host.ready()
        took = time.monotonic() - host.began
        host.say("shutdown")
        assert host.exits() == 0
    return took


@packaged
@pytest.mark.parametrize(("kind", "limit_s"), [("onedir", 0.5), ("onefile", 1.5)])
def test_it_is_ready_in_time(request: pytest.FixtureRequest, folder: Path, kind: str, limit_s: float) -> None:
    binary: Path = request.getfixturevalue(kind)
    tries: list[float] = []
    while len(tries) < 12 and min(tries, default=limit_s) >= limit_s:
        busy = max(1.0, seconds_to_load() / QUIET_S)
        tries.append(seconds_to_ready(binary, folder) / busy)
    assert min(tries) < limit_s, tries


# ---------------------------------------------------------------- its ends


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return lay(tmp_path / "data")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where one file unpacks itself, so that what is left there shows."""
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    return place


def sidecar(binary: Path, folder: Path) -> list[str]:
    return [str(binary), "sidecar", "--data-dir", str(folder)]


def sever(host: Host, number: signal.Signals) -> None:
    os.kill(host.child.pid, number)


#: How a launch ends, and whether the direct child then exits with 0 or because of SIGKILL.
ENDS: dict[str, tuple[Callable[[Host], Any], int]] = {
    "shutdown": (lambda host: host.say("shutdown"), 0),
    "stdin closed": (lambda host: host.close_stdin(), 0),
    "SIGTERM": (lambda host: sever(host, signal.SIGTERM), 0),
    "SIGINT": (lambda host: sever(host, signal.SIGINT), 0),
    "bootloader killed": (lambda host: host.kill(), -signal.SIGKILL),
}


@packaged
@pytest.mark.parametrize("way", ENDS)
def test_one_file_ends_in_every_way_and_leaves_nothing(
    onefile: Path, folder: Path, temporary: Path, way: str
) -> None:
    end, code = ENDS[way]
    with Host(sidecar(onefile, folder)) as host:
        ready = host.ready()
        assert ready["pid"] != host.child.pid, "a bootloader stands between"
        assert len(list(temporary.glob("_MEI*"))) == 1
        job = start_job(ready)
        end(host)
        assert host.exits() == code
        host.leaves_nothing()
        until(lambda: not list(temporary.glob("_MEI*")), within_s=2, what="an empty temporary folder")
        assert is_free(folder)
        assert host.lines[-1] == {"type": "stopped"}
    with Host(sidecar(onefile, folder)) as host:
        ended_exactly(host.ready(), folder, job)


@packaged
def test_one_file_whose_server_is_killed_tells_its_host(onefile: Path, folder: Path, temporary: Path) -> None:
    with Host(sidecar(onefile, folder)) as host:
        ready = host.ready()
        job = start_job(ready)
        os.kill(ready["pid"], signal.SIGKILL)
        assert host.exits() != 0
        host.leaves_nothing()
        until(lambda: not list(temporary.glob("_MEI*")), within_s=2, what="an empty temporary folder")
        assert is_free(folder)
    with Host(sidecar(onefile, folder)) as host:
        ended_exactly(host.ready(), folder, job)


@packaged
def test_one_file_whose_host_is_killed_leaves_nothing(onefile: Path, folder: Path, temporary: Path) -> None:
    with FarHost(folder, argv=sidecar(onefile, folder)) as host:
        job = start_job(host.ready())
        host.kill()
        host.leaves_nothing()
        until(lambda: not list(temporary.glob("_MEI*")), within_s=2, what="an empty temporary folder")
        assert is_free(folder)
    with Host(sidecar(onefile, folder)) as host:
        ended_exactly(host.ready(), folder, job)


# ---------------------------------------------------------------- a page of an application


@packaged
@pytest.mark.browser
@pytest.mark.parametrize("transport", ["ws", "sse", "poll"])
def test_a_page_drives_a_job_through_the_binary(
    chromium: Browser, onefile: Path, folder: Path, transport: str
) -> None:
    with Host(sidecar(onefile, folder)) as host:
        ready = host.ready(token=None)
        view = view_of(ready, ready["token"])
        with Webview(chromium, "http://tauri.localhost", view, client=onefile.parent / "ui") as window:
            sockets: list[str] = []
            asked: list[str] = []
            window.page.on("websocket", lambda socket: sockets.append(socket.url))
            window.page.on("request", lambda request: asked.append(request.url))
            window.open(f"?transports={transport}")
            assert window.choose("delete") == f"done: {ROWS} of {ROWS}"
            assert len(deleted(folder)) == ROWS
            assert window.complaints == []
            assert (transport == "ws") == bool(sockets)
            streams = [url for url in asked if "/api/events" in url]
            assert (transport == "ws") == (not streams)
            assert not [url for url in [*asked, *sockets] if ready["token"] in url]


@packaged
@pytest.mark.browser
def test_a_page_of_another_origin_is_refused_even_with_the_token(
    chromium: Browser, onefile: Path, folder: Path
) -> None:
    with Host(sidecar(onefile, folder)) as host:
        ready = host.ready()
        with Webview(chromium, "http://evil.localhost", view_of(ready, TOKEN)) as window:
            page = window.open()
            page.wait_for_selector("text=Ready")
            read = """([url, token]) =>
                fetch(url, {headers: {Authorization: `Bearer ${token}`}}).then(({status}) => status, String)"""
            assert "TypeError" in str(page.evaluate(read, [f"{ready['http']}/api/me", TOKEN]))
            socket = """url => new Promise(done => {
                const one = new WebSocket(url, ["bulkops.v1"]);
                one.onopen = () => done("open"); one.onclose = ({code}) => done(code);
            })"""
            assert page.evaluate(socket, ready["ws"]) == 1006
            stream = """url => new Promise(done => {
                const one = new EventSource(url);
                one.onopen = () => done("open"); one.onerror = () => done("refused");
            })"""
            assert page.evaluate(stream, f"{ready['http']}/api/events") == "refused"
        assert ask(ready, "GET", "/api/jobs")[2]["items"] == []
        assert ask(ready, "GET", "/api/me", Origin="http://evil.localhost")[0] == 403
