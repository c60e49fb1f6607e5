"""The README's FastAPI application, as it stands there: its people start jobs, strangers do not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.hosting import ask, make_database
from tests.test_examples import CONFIG

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


async def test_the_application_of_the_readme_has_its_own_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastapi", reason="FastAPI is not installed")
    (script,) = [
        block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "FastAPI" in block
    ]
    make_database(tmp_path)
    (tmp_path / "bulkops.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(script, "README.md", "exec"), names)
    app = names["app"]
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        assert (await client.get("/bulk/api/me")).status_code == 401
        client.cookies.set("session", "session-of-ana")
        assert (await client.get("/bulk/api/me")).json()["user"] == "ana"
        headers = {"origin": "http://127.0.0.1"}
        answer = await client.post("/bulk/api/bulk/sessions/delete", json={"ids": [1, 3]}, headers=headers)
        assert answer.status_code == 202, answer.text
        job = (await client.get(answer.headers["location"], params={"wait": 20})).json()
        assert (job["status"], job["succeeded"], job["requested_by"]) == ("completed", 2, "ana")
    assert ask(tmp_path, "SELECT count(*) FROM sessions WHERE deleted") == [(2,)]
