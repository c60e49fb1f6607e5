"""The browser that plays a desktop application's webview."""

from __future__ import annotations

from tests.browser.conftest import chromium

__all__ = ["chromium"]
