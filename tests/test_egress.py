"""The guard of outgoing calls: a table of what must never be called, in every form it can be written."""

from __future__ import annotations

import ipaddress
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkops import egress
from bulkops.egress import AddressRefused, NameUnknown, Policy, Resolver, Target, policy_of, read_url

PUBLIC = Policy()

#: Hosts of attack row 38 that name an inner address by themselves.
INNER_LITERALS = [
    "127.0.0.1",
    "127.8.9.10",
    "0.0.0.0",
    "0",
    "127.1",
    "2130706433",
    "0x7f.1",
    "0x7f000001",
    "0177.0.0.1",
    "127.0.0.01",
    "1.2.3",
    "256.1.1.1",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "168.63.129.16",
    "100.64.0.1",
    "100.100.100.200",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.7",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:10.0.0.1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::a00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2002:808:808::1]",
    "[2001::7f00:1]",
    "[2001:db8::1]",
    "[3fff::1]",
    "[100::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "[fec0::1]",
    "[ff02::1]",
    "[5f00::1]",
    "[4000::1]",
]


@pytest.mark.parametrize("host", INNER_LITERALS)
def test_an_inner_address_is_refused_in_every_form(host: str) -> None:
    with pytest.raises(AddressRefused):
        read_url(f"https://{host}/hook", PUBLIC)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hook",
        "//app.example/",
        "http://app.example/",
        "ftp://app.example/",
        "file:///etc/passwd",
        "gopher://app.example/",
        "javascript:alert(1)",
        "https:///hook",
        "https://",
        "https://app.example:80/",
        "https://app.example:8443/",
        "https://app.example:0/",
        "https://app.example:65536/",
        "https://app.example:-1/",
        "https://app.example:/",
        "https://user@app.example/",
        "https://user:secret@app.example/",
        "https://app.example@127.0.0.1/",
        "https://127.0.0.1\\@app.example/",
        "https://app.example\\@127.0.0.1/",
        "https://app.example#@127.0.0.1/",
        "https://app.example/hook#part",
        "https://app.example /",
        " https://app.example/",
        "https://app.example/\n",
        "https://app.example/\r\nX-Header: 1",
        "https://app.example/\x00",
        "https://app.example/\u202e",
        "https://\uff11\uff12\uff17.0.0.1/",
        "https://\u2460\u2461\u2466.0.0.1/",
        "https://127\u30020\u30020\u30021/",
        "https://b\u00fccher.example/",
        "https://%31%32%37.0.0.1/",
        "https://app..example/",
        "https://.example/",
        "https://app.example./",
        "https://-app.example/",
        f"https://{'a' * 64}.example/",
        f"https://{'a.' * 127}example/",
        "https://[fe80::1%25eth0]/",
        "https://[::1/",
        "https://[app.example]/",
        "https://[1::2::3]/",
        f"https://app.example/{'a' * 2000}",
    ],
)
def test_what_is_no_plain_https_url_is_refused(url: str) -> None:
    with pytest.raises(AddressRefused):
        read_url(url, PUBLIC)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://app.example", Target("https", "app.example", 443, "/")),
        ("HTTPS://App.Example/Hook?a=1&b=%20", Target("https", "app.example", 443, "/Hook?a=1&b=%20")),
        ("https://app.example?a=/", Target("https", "app.example", 443, "/?a=/")),
        ("https://app.example:443/a", Target("https", "app.example", 443, "/a")),
        ("https://8.8.8.8/", Target("https", "8.8.8.8", 443, "/")),
        ("https://[2606:4700::1111]/", Target("https", "2606:4700::1111", 443, "/")),
        ("https://xn--bcher-kva.example/", Target("https", "xn--bcher-kva.example", 443, "/")),
        ("https://1.example/", Target("https", "1.example", 443, "/")),
    ],
)
def test_a_public_https_url_is_taken_apart(url: str, target: Target) -> None:
    assert read_url(url, PUBLIC) == target


def test_the_host_header_bears_brackets_and_only_an_unusual_port() -> None:
    assert Target("https", "app.example", 443, "/").authority == "app.example"
    assert Target("http", "::1", 8080, "/").authority == "[::1]:8080"
    assert Target("http", "app.example", 443, "/").authority == "app.example:443"


def test_the_operator_names_hosts_that_may_be_private_and_plain() -> None:
    policy = policy_of(["Hooks.LAN", "10.0.0.5:8080", "[::1]", "[fd00::1]:9000"], own_port=8765)
    for url in (
        "http://hooks.lan/",
        "https://hooks.lan/",
        "http://10.0.0.5:8080/",
        "http://[0:0::1]/",
        "http://[fd00::1]:9000/",
    ):
        assert policy.lists(read_url(url, policy)), url
    for url in (
        "http://hooks.lan:8080/",
        "http://10.0.0.5/",
        "https://10.0.0.5/",
        "http://10.0.0.6:8080/",
        "http://x.hooks.lan/",
        "http://[::1]:9000/",
    ):
        with pytest.raises(AddressRefused, match="webhook_hosts"):
            read_url(url, policy)


class Answers(Resolver):
    """A name service that answers from a list, one answer a question."""

    def __init__(self, *answers: list[str]) -> None:
        super().__init__()
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def resolve(self, host: str, port: int) -> list[str]:
        self.asked.append((host, port))
        return self.answers.pop(0)


async def locate(url: str, *answers: list[str], policy: Policy = PUBLIC) -> list[str]:
    return await egress.locate(read_url(url, policy), policy, Answers(*answers))


async def test_a_name_leads_to_the_addresses_that_were_judged() -> None:
    found = ["93.184.215.14", "2606:2800:21f::1", "::ffff:8.8.8.8", "64:ff9b::808:808"]
    assert await locate("https://app.example/", found) == found


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["93.184.215.14", "10.0.0.1"], ["::1"], ["fe80::1%eth0"], ["::ffff:169.254.169.254"]],
)
async def test_one_inner_address_among_those_of_a_name_is_enough_to_refuse(addresses: list[str]) -> None:
    with pytest.raises(AddressRefused, match="webhook_hosts"):
        await locate("https://app.example/", addresses)


async def test_a_name_that_alternates_is_judged_anew_each_time() -> None:
    resolver = Answers(["93.184.215.14"], ["127.0.0.1"])
    target = read_url("https://app.example/", PUBLIC)
    assert await egress.locate(target, PUBLIC, resolver) == ["93.184.215.14"]
    with pytest.raises(AddressRefused):
        await egress.locate(target, PUBLIC, resolver)
    assert resolver.asked == [("app.example", 443)] * 2


async def test_an_address_is_not_asked_for() -> None:
    assert await locate("https://8.8.8.8/") == ["8.8.8.8"]


async def test_our_own_door_is_refused_even_when_it_is_named() -> None:
    policy = policy_of(["127.0.0.1:8765", "hooks.lan:8765", "[::1]:8765"], own_port=8765)
    for url, answer in (
        ("http://127.0.0.1:8765/", []),
        ("http://[::1]:8765/", []),
        ("http://hooks.lan:8765/", ["::ffff:127.0.0.1"]),
        ("http://hooks.lan:8765/", ["0.0.0.0"]),
    ):
        with pytest.raises(AddressRefused, match="this server itself"):
            await locate(url, answer, policy=policy)
    assert await locate("http://hooks.lan:8765/", ["10.0.0.9"], policy=policy) == ["10.0.0.9"]


async def test_a_name_nobody_knows_is_refused_in_the_words_of_a_private_one() -> None:
    class Silent(Resolver):
        async def resolve(self, host: str, port: int) -> list[str]:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")

    with pytest.raises(NameUnknown) as unknown:
        await egress.locate(read_url("https://app.example/", PUBLIC), PUBLIC, Silent())
    with pytest.raises(AddressRefused) as private:
        await locate("https://app.example/", ["10.0.0.1"])
    assert str(unknown.value) == str(private.value)


async def test_the_machines_name_service_knows_the_machine() -> None:
    assert set(await Resolver().resolve("localhost", 443)) & {"127.0.0.1", "::1"}
    with pytest.raises(AddressRefused):
        await egress.locate(read_url("https://localhost/", PUBLIC), PUBLIC, Resolver())


async def test_a_name_service_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    hung = threading.Event()

    def ask(*_: object, **__: object) -> list[object]:
        hung.wait(30)
        return []

    monkeypatch.setattr(egress, "_RESOLVE_TIMEOUT_S", 0.05)
    monkeypatch.setattr(socket, "getaddrinfo", ask)
    try:
        with pytest.raises(NameUnknown):
            await egress.locate(read_url("https://app.example/", PUBLIC), PUBLIC, Resolver())
    finally:
        hung.set()


@given(st.ip_addresses(v=4))
def test_wrapping_an_address_changes_nothing_or_refuses_it(address: ipaddress.IPv4Address) -> None:
    mapped = ipaddress.IPv6Address(f"::ffff:{address}")
    nat64 = ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) + int(address))
    assert egress.is_public(mapped) == egress.is_public(nat64) == egress.is_public(address)
    sixtofour = ipaddress.IPv6Address((0x2002 << 112) + (int(address) << 80) + 1)
    teredo = ipaddress.IPv6Address((0x20010000 << 96) + (int(address) ^ 0xFFFF_FFFF))
    assert not egress.is_public(sixtofour)
    assert not egress.is_public(teredo)


@given(st.ip_addresses())
def test_nothing_that_python_calls_inner_is_public(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    wrapping = any(address in ipaddress.ip_network(each) for each in ("::ffff:0:0/96", "64:ff9b::/96"))
    special = address.is_private or address.is_loopback or address.is_link_local or address.is_multicast
    if not wrapping and (special or address.is_reserved or address.is_unspecified):
        assert not egress.is_public(address)


@given(st.text(max_size=60))
def test_any_text_is_a_target_or_refused(text: str) -> None:
    for url in (text, f"https://{text}", f"https://{text}/"):
        try:
            target = read_url(url, PUBLIC)
        except AddressRefused:
            continue
        assert target.scheme == "https"
        assert target.port == 443
        assert target.path.startswith("/")
        assert target.authority.isascii()
