"""Any bytes as a merchant's answer: an answer of ours that can be judged, told and kept."""

from typing import Final

from fuzz.headers import check_verdict
from fuzz.hostile import Hostile
from fuzz.target import Target
from paywatch.domain.delivery import Failure
from paywatch.webhooks.guard import Policy
from paywatch.webhooks.sender import Limits, Sender

_LIMITS: Final = Limits(deadline_s=5.0, body_bytes=2048, excerpt_bytes=256)
_POLICY: Final = Policy(allow_private=True)
SERVER: Final = Hostile()


def run(raw: bytes) -> None:
    """Post to a server that says just these bytes."""
    url = SERVER.open()
    SERVER.says = raw
    SERVER.run(_post(f"{url}/hook"))


async def _post(url: str) -> None:
    async with Sender(_POLICY, _LIMITS) as sender:
        answer = await sender.post(url, {"webhook-id": "1"}, b"{}")
    assert answer.failure is not Failure.TIMEOUT, "it hung on a server that had hung up"
    assert answer.status is not None or answer.failure is not None
    assert len(answer.excerpt) <= _LIMITS.excerpt_bytes
    assert len(answer.error or "") <= 400
    assert (answer.error or "").isprintable(), "a log's line and a column must hold it"
    for attempt in (1, 10):
        check_verdict(answer, attempt)


def response(head: str, body: bytes = b"", *headers: str) -> bytes:
    """One HTTP response."""
    lines = [f"HTTP/1.1 {head}", *headers]
    return "\r\n".join((*lines, "", "")).encode("latin-1") + body


_SEEDS: Final = (
    response("200 OK", b"thanks", "Content-Length: 6"),
    response("204 No Content"),
    response("429 Slow", b"", "Retry-After: 7", "Content-Length: 0"),
    response("302 Found", b"", "Location: http://169.254.169.254/", "Content-Length: 0"),
    response("410 Gone", b"x" * 5000),
    response("200 OK", b"6\r\nthanks\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
    response("200 OK", b"fffffffffffffffff\r\nx", "Transfer-Encoding: chunked"),
    response("200 OK", b"\x1f\x8b\x08\0\0\0\0\0\0\x03K\x04\0C\xbe\xb7\xe8\x01\0\0\0",
             "Content-Encoding: gzip", "Content-Length: 21"),
    response("200 OK", b"x", "Content-Encoding: br", "Set-Cookie: a=b"),
    response("100 Continue") + response("101 Switching Protocols", b"", "Upgrade: websocket"),
    response("999 Odd", b"x", "Content-Length: -1"),
    b"HTTP/0.9 \r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA\x01\x1b[1mB: c\r\n\r\n", b"\x16\x03\x01\0\0", b"",
)  # fmt: skip
TARGET = Target(run, _SEEDS, is_slow=True)
