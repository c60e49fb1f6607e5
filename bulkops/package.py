"""`python -m bulkops.package`: the whole command as one binary that needs no Python on its machine.

What comes in: a target triple and a folder; what goes out there: `bulkops-<triple>`, the name that Tauri's
`externalBin` looks for, with the schema and the page inside. PyInstaller does the work, for the system it runs
on; nothing is left outside the folder, and nothing of this module ends up in the binary.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import click
import msgspec

from bulkops.store.migrations import schema_file
from bulkops.web.static_files import static_dir

#: What a page of a desktop application takes along; it cannot fetch these before it knows the server.
CLIENT: Final = ("bulkops.js", "bulkops.d.ts")

_ENTRY: Final = "entry.py"
#: Loaded by name at run time, where no analysis of imports can see them.
_HIDDEN: Final = ("anyio._backends._asyncio", "uvicorn.lifespan.on", "uvicorn.lifespan.off")
#: Offered by what we use, used by nothing here; test_package.py holds that no module of ours loads one.
EXCLUDED: Final = (
    "PyInstaller",
    "_pyinstaller_hooks_contrib",
    "anyio._backends._trio",
    "anyio.pytest_plugin",
    "bulkops.package",
    "bulkops.testing",
    "doctest",
    "dotenv",
    "ensurepip",
    "h2",
    "lib2to3",
    "markdown_it",
    "pip",
    "pkg_resources",
    "pydoc_data",
    "pygments",
    "pytest",
    "setuptools",
    "tkinter",
    "trio",
    "unittest",
    "uvloop",
    "venv",
    "watchfiles",
    "werkzeug",
    "wsproto",
    "xmlrpc",
    "yaml",
)

_SYSTEMS: Final = {"Linux": "linux", "Darwin": "darwin", "Windows": "windows"}
_CPUS: Final = {
    "amd64": "x86_64",
    "x86_64": "x86_64",
    "arm64": "aarch64",
    "aarch64": "aarch64",
    "i386": "i686",
    "i686": "i686",
    "x86": "i686",
    "armv7l": "armv7",
    "riscv64": "riscv64gc",
}
_TRIPLE: Final = re.compile(r"[a-z0-9_]+(-[a-z0-9_.]+){1,3}")


def triple_of_rustc(told: str) -> str | None:
    """Read the host's triple from what `rustc -vV` prints; ``None`` when it is not in there."""
    found = re.search(r"^host: (\S+)$", told, re.MULTILINE)
    return found[1] if found else None


def triple_of_platform(system: str, machine: str, libc: str) -> str | None:
    """Name the triple that Rust has for a platform as Python names it; ``None`` for one not in the table."""
    cpu = _CPUS.get(machine.lower())
    if cpu is None or system not in _SYSTEMS:
        return None
    if system == "Darwin":
        return f"{cpu}-apple-darwin"
    if system == "Windows":
        return f"{cpu}-pc-windows-msvc"
    abi = "gnu" if libc == "glibc" else "musl"
    return f"{cpu}-unknown-linux-{abi}{'eabihf' if cpu == 'armv7' else ''}"


def find_triple() -> str | None:
    """Ask rustc, which a Tauri application is built with; without one go by the platform."""
    rustc = shutil.which("rustc")
    if rustc is not None:
        told = subprocess.run([rustc, "-vV"], capture_output=True, text=True, check=False).stdout  # noqa: S603  found on PATH
        found = triple_of_rustc(told)
        if found is not None:
            return found
    return triple_of_platform(platform.system(), platform.machine(), platform.libc_ver()[0])


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to build: ``onefile`` or a folder, into the folder ``output``, with the modules in ``include``."""

    triple: str
    onefile: bool
    output: Path
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"bulkops-{self.triple}"

    @property
    def binary(self) -> Path:
        """Where the binary will be."""
        file = f"{self.name}.exe" if sys.platform == "win32" else self.name
        return self.output / file if self.onefile else self.output / self.name / file


def arguments(order: Order, work: Path) -> list[str]:
    """Say to PyInstaller what to build; ``work`` may be thrown away afterwards."""
    found = [
        "--onefile" if order.onefile else "--onedir",
        f"--name={order.name}",
        f"--distpath={order.output.absolute()}",
        f"--workpath={work / 'build'}",
        f"--specpath={work}",
        "--noconfirm",
        "--console",
        "--noupx",  # a packed binary starts later, and is what virus scanners look for
        "--log-level=WARN",
        f"--add-data={schema_file()}:bulkops",
        f"--add-data={static_dir()}:bulkops/static",
        "--collect-submodules=bulkops",
        *(f"--hidden-import={name}" for name in _HIDDEN),
        *(f"--exclude-module={name}" for name in (*EXCLUDED, *order.exclude)),
    ]
    for name in order.include:
        found += [f"--hidden-import={name}", f"--collect-submodules={name}"]
    if sys.platform == "win32":
        found.append("--collect-all=tzdata")  # elsewhere the system has the time zones
    elif shutil.which("strip") is not None:
        found.append("--strip")
    return [*found, str(work / _ENTRY)]


def build(order: Order) -> Path:
    """Build the binary and return its path.

    Raises:
        ModuleNotFoundError: PyInstaller is not installed.

    """
    with tempfile.TemporaryDirectory(prefix="bulkops-package-") as folder:
        work = Path(folder)
        # PyInstaller keeps a cache at home otherwise, which two builds at a time would share.
        os.environ["PYINSTALLER_CONFIG_DIR"] = str(work / "cache")
        from PyInstaller.__main__ import run  # an extra, and it reads the variable above

        # Not binary.py itself: what lies beside the script would be taken for top-level modules.
        (work / _ENTRY).write_text("from bulkops.binary import main\n\nmain()\n", encoding="utf-8")
        run(arguments(order, work))
    return order.binary


def copy_client(folder: Path) -> None:
    """Put the JavaScript client of this version, with its types, into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in CLIENT:
        shutil.copyfile(static_dir() / name, folder / name)


@click.command()
@click.option("--onefile/--onedir", default=True, help="One file (the default), or a folder: starts sooner.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("dist"),
    show_default=True,
    help="The folder to put it in: src-tauri/binaries.",
)
@click.option("--target", metavar="TRIPLE", help="The target triple in its name, instead of rustc's.")
@click.option(
    "--include-module",
    "include",
    metavar="MODULE",
    multiple=True,
    help="A module of yours that bulkops.toml names (kind, storage), or its package; may be repeated.",
)
@click.option(
    "--without-photos", is_flag=True, help="Leave Pillow out, though it is installed: a third smaller."
)
@click.option(
    "--client",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also put bulkops.js of this version into this folder.",
)
def main(
    *,
    onefile: bool,
    output: Path,
    target: str | None,
    include: tuple[str, ...],
    without_photos: bool,
    client: Path | None,
) -> None:
    """Build bulkops as one binary, named bulkops-TRIPLE as Tauri's externalBin wants it."""
    triple = target or find_triple()
    if triple is None:
        raise click.UsageError("this platform is not in the table; name its target triple with --target")
    refuse_foreign(triple)
    refuse_unknown(include)
    if importlib.util.find_spec("PyInstaller") is None:
        raise click.ClickException(
            "PyInstaller is not installed; it comes with the extra `sidecar`: pip install 'bulkops[sidecar]'"
        )
    if client is not None:
        copy_client(client)
    exclude = ("PIL",) if without_photos else ()
    order = Order(triple=triple, onefile=onefile, output=output, include=include, exclude=exclude)
    click.echo(build(order))


def refuse_foreign(triple: str) -> None:
    """Refuse a name that would lie about what is inside: PyInstaller builds for the system it runs on.

    Raises:
        click.UsageError: it is no triple, or one of another system.

    """
    if not _TRIPLE.fullmatch(triple):
        raise click.UsageError(f"{triple} is no target triple, such as x86_64-unknown-linux-gnu")
    system = _SYSTEMS.get(platform.system())
    if system is not None and system not in triple.split("-"):
        raise click.UsageError(f"{triple} is not for this system, and binaries are built where they will run")


def refuse_unknown(modules: tuple[str, ...]) -> None:
    """Refuse a module that cannot be found; PyInstaller would only warn and leave it out.

    Raises:
        click.UsageError: one of them is not importable.

    """
    for name in modules:
        try:
            known = importlib.util.find_spec(name) is not None
        except (ImportError, ValueError):
            known = False
        if not known:
            raise click.UsageError(f"there is no module {name} to include; is its folder on PYTHONPATH?")


if __name__ == "__main__":
    main(prog_name="python -m bulkops.package")
