"""Any text as a webhook's URL: refused by name, or one that leads to no private place."""

import ipaddress
from typing import Final

from yarl import URL

from fuzz.target import Target
from paywatch.errors import WebhookRefused
from paywatch.webhooks.guard import Policy, check_url, is_public

_STRICT: Final = Policy()
_LOCAL: Final = Policy(allow_private=True)


def run(raw: bytes) -> None:
    """Judge the text by the strict policy and by that of development."""
    text = raw.decode(errors="surrogateescape")
    for policy in (_STRICT, _LOCAL):
        try:
            url = check_url(text, policy)
        except WebhookRefused as error:
            str(error).encode()
            continue
        host = url.raw_host or ""
        assert host
        assert host.isascii()
        assert not url.user
        assert not url.password
        assert _place(check_url(str(url), policy)) == _place(url), "other when written again"
        if policy is _STRICT:
            assert url.scheme == "https"
            assert url.port in {443, 8443}
            _check_host(host)


def _place(url: URL) -> tuple[object, ...]:
    return (url.scheme, url.raw_host, url.port, url.raw_path_qs)


def _check_host(host: str) -> None:
    """By the system's own reading of numbers: 0x7f.1 and 2130706433 are addresses, too."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        last = host.removesuffix(".").rpartition(".")[2]
        assert last != "localhost"
        assert not last.isdigit()
        assert not last.startswith("0x") or last[2:].strip("0123456789abcdef") != ""
        return
    assert is_public(address)


_URLS: Final = (
    "https://shop.example/webhooks?x=1", "https://shop.example:8443/", "https://192.0.2.1/",
    "https://8.8.8.8/", "https://[2600::1]/", "https://[::ffff:127.0.0.1]/", "https://127.1/",
    "https://0x7f.0.0.1/", "https://2130706433/", "https://localhost./", "https://user@shop.example/",
    "https://b\u00fccher.example/", "https://\uff11\uff12\uff17.0.0.1/", "https://[fe80::1%25eth0]/",
    "https://shop.example\\@10.0.0.1/", "https://shop.example#@10.0.0.1/", "http://127.0.0.1:8000/",
    "https://a..b/", "https://xn--bcher-kva.example./%2e%2e/", "https://shop.example:0443/",
)  # fmt: skip
TARGET = Target(run, tuple(url.encode() for url in _URLS))
