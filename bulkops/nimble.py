"""What belongs to a whole process, set by a server that has it to itself and never by one that is mounted.

The default interval of 5 ms lets a thread that decodes ids hold the loop up; what a start made stays for good,
so that no collection has to look at it again.
"""

from __future__ import annotations

import gc
import sys
from typing import Final

_SWITCH_S: Final = 0.0005


def keep_the_loop_nimble() -> None:
    """Set the interval between threads, and begin to collect garbage with what is there left out."""
    sys.setswitchinterval(_SWITCH_S)
    gc.freeze()
    gc.enable()
