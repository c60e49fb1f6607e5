"""The contract suite: what every resource must do, whatever stands behind it, to be run by its author.

What comes in: a `Subject`, that is a house over some items and a way to look at them from outside; what goes
out: nothing, or an AssertionError that says which promise is broken. Crashes are crashes: the house is left
in the middle of a batch, nothing more is written, and another one is opened on what is there.

    from bulkops.testing import CHECKS, Subject

    @pytest.mark.anyio
    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_my_resource_keeps_the_contract(check, tmp_path):
        await check(MySubject(tmp_path))
"""

from __future__ import annotations

from bulkops.testing.checks import CHECKS
from bulkops.testing.subject import Check, Subject, Unsupported

__all__ = ["CHECKS", "Check", "Subject", "Unsupported"]
