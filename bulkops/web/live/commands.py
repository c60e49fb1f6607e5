"""What a client may say over the WebSocket, subprotocol ``bulkops.v1``: its commands, read strictly.

Texts come in, values go out; no socket is held here. What is no command at all is a `BadFrame`, which closes the
socket; what is a command that cannot be obeyed is a `Refusal`, which is answered.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from bulkops.errors import Refusal
from bulkops.feed import Topic
from bulkops.shapes import whole

VERSION: Final = "bulkops.v1"
TICKET: Final = "bulkops.ticket."
MAX_ID: Final = 128


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    id: Any = None
    ticket: Any = None


class Subscribe(msgspec.Struct, frozen=True, tag="subscribe"):
    id: Any = None
    sub: Any = None
    topic: Any = None
    since: Any = "now"


class Unsubscribe(msgspec.Struct, frozen=True, tag="unsubscribe"):
    id: Any = None
    sub: Any = None


class Pong(msgspec.Struct, frozen=True, tag="pong"):
    id: Any = None


Command = Hello | Subscribe | Unsubscribe | Pong
_decoder: Final = msgspec.json.Decoder(whole(Command))


class BadFrame(ValueError):
    """What came is no command of ours; the socket is closed with 4500."""


def parse_command(text: str) -> Command:
    """Read one text frame.

    Raises:
        BadFrame: it is no JSON object, or of no type we know.
    """
    try:
        command: Command = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadFrame(str(error)) from error
    return command


def parse_topic(topic: Any) -> Topic:
    """Read the topic of a subscription.

    Raises:
        Refusal: it is none; an id that cannot be one is ``NOT_FOUND``, as an unknown one is.
    """
    kind = topic.get("kind") if isinstance(topic, dict) else None
    if kind in {"all", "tenant"}:
        return Topic(kind)
    if kind not in {"job", "task"}:
        raise Refusal("INVALID_FIELD", "topic must be all, job, task or tenant")
    subject = topic.get("job" if kind == "job" else "task_id")
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_ID:
        raise Refusal("NOT_FOUND", f"there is no such {kind}")
    return Topic(kind, subject)


def choose_subprotocol(offered: list[str]) -> tuple[str | None, bool]:
    """Choose what to accept, and say whether it is ours; who offers nothing is taken to speak ours.

    A browser learns a close code only of a subprotocol it offered, so a foreign one is accepted first.
    """
    if VERSION in offered:
        return VERSION, True
    foreign = [name for name in offered if not name.startswith(TICKET)]
    return (foreign[0] if foreign else None), not offered
