"""Where a POST may go: the guard against requests into private networks (SSRF).

`check_url` judges the text of a URL, at registration and again before every request;
`GuardedResolver` judges the addresses of a name, at every connect. aiohttp connects to a
literal address without asking its resolver, so literals are judged by `check_url`, which
returns the very object that is then requested: one parser, no second reading.
"""

import asyncio
import ipaddress
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from paywatch.errors import WebhookRefused

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_URL_LENGTH = 2048
_PORTS = frozenset({443, 8443})

# From IANA's special-purpose registries, the multicast and reserved ranges, and the one
# metadata service that is public by number. `ipaddress.is_global` is wrong on many of them.
_NOT_PUBLIC_V4 = tuple(
    ipaddress.IPv4Network(net)
    for net in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; 100.100.100.200 is Alibaba's metadata
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's metadata
        "169.254.0.0/16",  # link-local; 169.254.169.254 is most clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; 192.0.0.192 is Oracle's metadata
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT relays
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
# Everything outside of it is refused, and with it every form that carries an IPv4 address:
# mapped (::ffff:0:0/96), compatible (::/96), NAT64 (64:ff9b::/96 and 64:ff9b:1::/48).
_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_V6 = tuple(
    ipaddress.IPv6Network(net)
    for net in (
        "2001::/23",  # protocol assignments; 2001::/32 is Teredo, which carries IPv4
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which carries IPv4
        "2620:4f:8000::/48",  # AS112
        "3ffe::/16",  # the former 6bone
        "3fff::/20",  # documentation
    )
)
# What `allow_private` opens. Link-local stays shut: nobody develops on a metadata service.
_PRIVATE: tuple[Network, ...] = tuple(
    ipaddress.ip_network(net)
    for net in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "::1/128",
        "fc00::/7",
    )
)

_NOT_ALLOWED = "an address that is not public; for development set PAYWATCH_ALLOW_PRIVATE_WEBHOOKS"

# Control characters and spaces are dropped or moved by URL parsers; a backslash is a slash to some.
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
# A last label like these makes `getaddrinfo` read the name as an IPv4 address.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator allows beyond public addresses on HTTPS ports 443 and 8443.

    Args:
        allow_private: for development: plain HTTP, any port, loopback and private networks.
        ports: more ports for HTTPS.
        networks: more networks, taken at the operator's word, whatever they hold.
    """

    allow_private: bool = False
    ports: frozenset[int] = frozenset()
    networks: tuple[Network, ...] = ()

    def allows(self, address: Address) -> bool:
        """Whether a connection may be made to `address`."""
        if any(address in network for network in self.networks):
            return True
        if self.allow_private and any(address in network for network in _PRIVATE):
            return True
        return is_public(address)

    def allows_port(self, port: int) -> bool:
        """Whether a connection may be made to `port`."""
        return self.allow_private or port in _PORTS or port in self.ports


def is_public(address: Address) -> bool:
    """Whether `address` is a public unicast address that carries no other one inside."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    return (
        address in _UNICAST_V6
        and address.scope_id is None
        and not any(address in network for network in _NOT_PUBLIC_V6)
    )


@lru_cache(maxsize=4096)
def check_url(text: str, policy: Policy) -> URL:
    """Judge the text of a webhook URL and return what is to be requested.

    A host name is judged by its form only; its addresses are judged at every connect.

    Raises:
        WebhookRefused: a POST may not go there; the message names the part and the remedy.
    """
    url = _parse(text)
    if url.scheme != "https" and not (policy.allow_private and url.scheme == "http"):
        raise WebhookRefused("webhook URL, scheme: use https://")
    if not url.port or not policy.allows_port(url.port):
        allowed = ", ".join(map(str, sorted(_PORTS | policy.ports)))
        raise WebhookRefused(f"webhook URL, port: use one of {allowed}")
    _check_host(url.raw_host or "", policy)
    return url


def _parse(text: str) -> URL:
    """Refuse by the raw text what a URL parser would tidy away, then parse."""
    if len(text) > MAX_URL_LENGTH:
        raise WebhookRefused(f"webhook URL: use at most {MAX_URL_LENGTH} characters")
    if _FORBIDDEN.search(text) or not text.isprintable():
        raise WebhookRefused("webhook URL: remove spaces, control characters and backslashes")
    if "#" in text:
        raise WebhookRefused("webhook URL, fragment: remove everything from '#' on")
    scheme, slashes, rest = text.partition("://")
    if not slashes or not scheme.isalpha():
        raise WebhookRefused("webhook URL: write it in full, like https://example.com/hook")
    authority = re.split(r"[/?]", rest, maxsplit=1)[0]
    if "@" in authority:
        raise WebhookRefused("webhook URL, user-info: remove everything before '@'")
    try:
        return URL(text)
    except ValueError:  # UnicodeError, for a host that IDNA refuses, is one too
        raise WebhookRefused("webhook URL, host or port: it cannot be read") from None


def _check_host(host: str, policy: Policy) -> None:
    """Judge a host as the connector will see it: lower case, IDNA applied, no brackets."""
    address = _literal(host)
    if address is not None:
        _check_address(address, host, policy)
        return
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise WebhookRefused("webhook URL, host: it is not a host name")
    if _NUMBER.fullmatch(labels[-1]):
        raise WebhookRefused(
            "webhook URL, host: write an IPv4 address as four decimal numbers, or use a name"
        )
    if labels[-1] == "localhost":
        _check_address(ipaddress.IPv4Address("127.0.0.1"), host, policy)


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _check_address(address: Address, host: str, policy: Policy) -> None:
    if not policy.allows(address):
        raise WebhookRefused(f"webhook URL, host: {host} is {_NOT_ALLOWED}")


class ThreadedResolver(AbstractResolver):
    """`getaddrinfo` on threads of its own.

    A look-up cannot be canceled, only abandoned: on the loop's default threads a handful of
    dead name servers would stop everything else that uses those threads.
    """

    def __init__(self, threads: int = 32) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="webhook-dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """All addresses of `host`, of both families unless one is asked for."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, _look_up, host, port, family)

    async def close(self) -> None:
        """Let go of the threads; abandoned look-ups end by themselves."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    found = socket.getaddrinfo(
        host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    )
    return [
        ResolveResult(
            hostname=host,
            host=str(address[0]),
            port=port,
            family=found_family,
            proto=proto,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for found_family, _, proto, _, address in found
    ]


class GuardedResolver(AbstractResolver):
    """Resolves once and refuses the name if any of its addresses is not allowed.

    The connector connects to the vetted addresses and nothing else, with the original name
    for SNI and Host. One bad address refuses all: a name that points inside and outside is
    an attack or a mistake, and which address is tried first is chance.
    """

    def __init__(self, policy: Policy, inner: AbstractResolver) -> None:
        self._policy = policy
        self._inner = inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of `host`.

        Raises:
            OSError: the name does not resolve.
            WebhookRefused: an address is not allowed.
        """
        found = await self._inner.resolve(host, port, family)
        if not found:
            raise OSError("no address found")
        for result in found:
            address = _literal(result["host"])
            if address is None or not self._policy.allows(address):
                # The address itself is not told: refusals must not map the inside of a network.
                raise WebhookRefused(f"webhook URL, host: {host} has {_NOT_ALLOWED}")
        return found

    async def close(self) -> None:
        """Close the resolver inside."""
        await self._inner.close()
