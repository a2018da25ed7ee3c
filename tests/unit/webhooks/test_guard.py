import ipaddress
import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st

from paywatch.errors import WebhookRefused
from paywatch.webhooks.guard import GuardedResolver, Policy, check_url, is_public

STRICT = Policy()
DEVELOPMENT = Policy(allow_private=True)

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2001:4860:4860::8888",
    "2a00:1450:4001:800::200e",
    "2001:200::1",
]

NOT_PUBLIC = [
    "0.0.0.0",  # noqa: S104 - an address to refuse, nothing is bound
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.255",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.168.1.1",
    "192.175.48.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::8.8.8.8",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:0:53aa:64c:0:fbff:ac17:1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::",
    "2620:4f:8000::1",
    "3ffe::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700::1%eth0",
    "fec0::1",
    "ff02::1",
]

# Everything that `getaddrinfo` or a URL parser turns into 127.0.0.1.
ODD_LOOPBACKS = [
    "2130706433",
    "0x7f000001",
    "0X7F000001",
    "017700000001",
    "0177.0.0.1",
    "0x7f.0.0.1",
    "0x7f.1",
    "127.1",
    "127.0.1",
    "127.000.000.001",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "\uff11\uff12\uff17.0.0.1",
    "127.0.0.1.",
    "127.1.",
    "0",
    "0x",
    "localhost",
    "localhost.",
    "LOCALHOST",
    "ⓛocalhost",
    "anything.localhost",
    "[::1]",
    "[::127.0.0.1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:0:0:1]",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))
    assert STRICT.allows(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_other_addresses_are_not(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    assert not STRICT.allows(ipaddress.ip_address(address))


@given(st.ip_addresses())
def test_never_laxer_than_the_standard_library(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if is_public(address):
        assert address.is_global
        assert not address.is_multicast


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "192.168.0.9", "::1", "fd00::1"])
def test_development_opens_loopback_and_private_networks(address: str) -> None:
    assert DEVELOPMENT.allows(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["169.254.169.254", "168.63.129.16", "fe80::1", "0.1.1.1"])
def test_development_opens_no_metadata_service(address: str) -> None:
    assert not DEVELOPMENT.allows(ipaddress.ip_address(address))


def test_an_allowlist_opens_its_networks_only() -> None:
    policy = Policy(networks=(ipaddress.ip_network("10.8.0.0/16"),))
    assert policy.allows(ipaddress.ip_address("10.8.1.1"))
    assert not policy.allows(ipaddress.ip_address("10.9.1.1"))
    assert check_url("https://10.8.1.1/hook", policy).host == "10.8.1.1"


@pytest.mark.parametrize(
    "text",
    [
        "https://example.com",
        "https://example.com/hook",
        "https://example.com./hook",
        "https://example.com:443/hook?token=a%20b",
        "https://example.com:8443/hook",
        "HTTPS://EXAMPLE.COM/Hook",
        "https://hooks_1.example-shop.co.uk/a/b/c",
        "https://bücher.example/zahlung/ü",
        "https://xn--bcher-kva.example/",
        "https://1.1.1.1/hook",
        "https://[2606:4700:4700::1111]/hook",
        "https://example.com/at@sign",
        "https://123.example.com/",
        "https://example.com/" + "a" * (2048 - 20),
    ],
)
def test_ordinary_urls_are_accepted(text: str) -> None:
    assert check_url(text, STRICT).scheme == "https"


def test_a_host_in_any_script_is_requested_by_its_idna_form() -> None:
    assert check_url("https://Bücher.example/", STRICT).raw_host == "xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("http://example.com/", "scheme"),
        ("ftp://example.com/", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("gopher://example.com:443/", "scheme"),
        ("example.com/hook", "in full"),
        ("//example.com/hook", "in full"),
        ("https:example.com", "in full"),
        ("", "in full"),
        ("https://example.com:80/", "port"),
        ("https://example.com:22/", "port"),
        ("https://example.com:0/", "port"),
        ("https://example.com:99999/", "port"),
        ("https://example.com:-1/", "port"),
        ("https://example.com:x/", "port"),
        ("https://user:password@example.com/", "user-info"),
        ("https://user@example.com/", "user-info"),
        ("https://@example.com/", "user-info"),
        ("https://example.com@127.0.0.1/", "user-info"),
        ("https://example.com/#part", "fragment"),
        ("https://example.com/#", "fragment"),
        ("https://127.0.0.1#@example.com/", "fragment"),
        ("https://exa\tmple.com/", "control"),
        ("https://example.com/\r\nX-Evil: 1", "control"),
        ("https://example.com/\x00", "control"),
        ("https://exam ple.com/", "spaces"),
        (" https://example.com/", "spaces"),
        ("https://example.com/\u202ekooh", "control"),
        ("https://example.com\\@127.0.0.1/", "backslash"),
        ("https:\\\\example.com/", "backslash"),
        ("https://example.com/" + "a" * 2048, "2048"),
        ("https:///hook", "host"),
        ("https://?x", "host"),
        ("https://ex%61mple.com/", "host"),
        ("https://127%2e0.0.1/", "host"),
        ("https://[fe80::1%25eth0]/", "host"),
        ("https://[::1/", "host"),
        ("https://exa!mple.com/", "host"),
        ("https://..example.com/", "host"),
        ("https://-example.com/", "host"),
        ("https://" + "a" * 64 + ".com/", "host"),
        ("https://" + "a." * 130 + "com/", "host"),
        ("https://xn--zzzz\u0080/", "control"),
        ("https://exa\u0130mple.\u0378/", "control"),
        ("https://1.2.3.4.5/", "host"),
        ("https://256.1.1.1/", "host"),
        ("https://134744072/", "host"),
        ("https://127.0.0.1/", "host"),
        ("https://169.254.169.254/latest/meta-data/", "host"),
        ("https://[64:ff9b::a9fe:a9fe]/", "host"),
        ("https://[2002:7f00:1::]/", "host"),
    ],
)
def test_other_urls_are_refused_by_the_part_that_is_wrong(text: str, part: str) -> None:
    with pytest.raises(WebhookRefused, match=part):
        check_url(text, STRICT)


@pytest.mark.parametrize("host", ODD_LOOPBACKS)
def test_lesson_8_every_spelling_of_loopback_is_refused(host: str) -> None:
    with pytest.raises(WebhookRefused, match="host"):
        check_url(f"https://{host}/hook", STRICT)


@given(st.text(max_size=60), st.text(alphabet="0123456789abcdefxX.。:[]%@#?/\\ ①", max_size=40))
def test_no_text_crashes_the_guard(path: str, host: str) -> None:
    for text in (path, f"https://{host}/{path}"):
        try:
            url = check_url(text, STRICT)
        except WebhookRefused:
            continue
        assert url.scheme == "https"
        assert url.port in (443, 8443)


@given(st.ip_addresses(v=4), st.sampled_from(["{}", "0x{:x}", "0{:o}"]))
def test_a_host_that_the_system_reads_as_an_address_is_never_taken_for_a_name(
    address: ipaddress.IPv4Address, spelling: str
) -> None:
    """`getaddrinfo` reads single numbers in three bases."""
    with pytest.raises(WebhookRefused):
        check_url(f"https://{spelling.format(int(address))}/", STRICT)


@pytest.mark.parametrize(
    "text",
    [
        "http://localhost:8080/hook",
        "http://127.0.0.1:9/",
        "https://10.0.0.7:3000/",
        "http://[::1]:8080/",
        "http://merchant:5000/",
        "https://example.com/",
    ],
)
def test_development_allows_plain_http_any_port_and_private_targets(text: str) -> None:
    assert check_url(text, DEVELOPMENT)


@pytest.mark.parametrize(
    "text",
    ["ftp://localhost/", "http://localhost:0/", "http://u@localhost/", "http://2130706433/"],
)
def test_development_still_refuses_what_nobody_needs(text: str) -> None:
    with pytest.raises(WebhookRefused):
        check_url(text, DEVELOPMENT)


def test_a_setting_opens_more_ports_for_https_only() -> None:
    policy = Policy(ports=frozenset({9443}))
    assert check_url("https://example.com:9443/", policy).port == 9443
    with pytest.raises(WebhookRefused, match="443, 8443, 9443"):
        check_url("https://example.com:9444/", policy)
    with pytest.raises(WebhookRefused, match="scheme"):
        check_url("http://example.com:9443/", policy)


class Names(AbstractResolver):
    """The outside world's answers."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=a, port=port, family=family, proto=0, flags=0)
            for a in self.addresses
        ]

    async def close(self) -> None: ...


async def test_a_name_with_public_addresses_only_resolves_to_all_of_them() -> None:
    found = await GuardedResolver(STRICT, Names("1.1.1.1", "2606:4700::1")).resolve(
        "a.example", 443
    )
    assert [result["host"] for result in found] == ["1.1.1.1", "2606:4700::1"]


@pytest.mark.parametrize("bad", ["10.0.0.1", "::1", "fe80::1%eth0", "::ffff:8.8.8.8", "nonsense"])
@pytest.mark.parametrize("bad_first", [True, False])
async def test_one_bad_address_refuses_the_name(bad: str, bad_first: bool) -> None:
    addresses = (bad, "1.1.1.1") if bad_first else ("1.1.1.1", bad)
    with pytest.raises(WebhookRefused, match=r"a\.example") as caught:
        await GuardedResolver(STRICT, Names(*addresses)).resolve("a.example", 443)
    assert bad not in str(caught.value), "a refusal must not map the inside of a network"


async def test_a_name_without_addresses_does_not_resolve() -> None:
    with pytest.raises(OSError, match="no address"):
        await GuardedResolver(STRICT, Names()).resolve("a.example", 443)
