"""Egress: where experts may be, and how they are reached."""

import ipaddress
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs

from conclave.gateway.errors import ExpertFailed
from conclave.gateway.experts.egress import (
    Allowed,
    Egress,
    Refused,
    check_address,
    check_url,
    guarded,
    search_domains,
)
from conclave.gateway.experts.openai_http import HttpSessions, OpenAIExpert
from conclave.gateway.prompt import Prompt

NOTHING = Allowed()
CLUSTER = ("models.svc.cluster.local", "svc.cluster.local", "cluster.local")


class Told(AbstractResolver):
    """A resolver that says what it was told to."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[Any]:
        return [
            {"hostname": host, "host": address, "port": port, "family": family, "proto": 0, "flags": 0}
            for address in self.addresses
        ]

    async def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(
    "url",
    ["https://api.openai.com/v1", "http://8.8.8.8/v1", "http://127.0.0.1:11434/v1", "http://[::1]:8000/v1",
     "http://[2606:4700::1111]/v1", "http://localhost/v1"],
)  # fmt: skip
def test_public_addresses_and_this_machine_are_open(url: str) -> None:
    check_url(url, NOTHING)


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://169.254.169.254/latest/meta-data", id="metadata"),
        pytest.param("http://10.0.0.5/v1", id="private"),
        pytest.param("http://192.168.1.4:8000/v1", id="private-home"),
        pytest.param("http://100.64.0.1/v1", id="carrier-grade-nat"),
        pytest.param("http://0.0.0.0:8000/v1", id="unspecified"),
        pytest.param("http://224.0.0.1/v1", id="multicast"),
        pytest.param("http://[fe80::1%25eth0]/v1", id="link-local-v6"),
        pytest.param("http://[fd00:ec2::254]/v1", id="metadata-v6"),
        pytest.param("http://[::ffff:10.0.0.5]/v1", id="mapped-v4"),
        pytest.param("http://[64:ff9b::a00:5]/v1", id="nat64"),
        pytest.param("http://[2002:a00:5::]/v1", id="6to4"),
        pytest.param("http://2852039166/latest", id="decimal"),
        pytest.param("http://0xa9fea9fe/latest", id="hexadecimal"),
        pytest.param("http://0251.0376.0251.0376/latest", id="octal"),
        pytest.param("http://10.5/v1", id="short"),
        pytest.param("http://169.254.169.254./", id="dot-at-the-end"),
        pytest.param("http://192.0.0.192/v1", id="metadata-of-oracle"),
        pytest.param("http://168.63.129.16/", id="wire-server-of-azure"),
        pytest.param("http://[fec0::1]/", id="site-local"),
        pytest.param("http://[64:ff9b:1::a9fe:a9fe]/", id="nat64-of-ones-own"),
        pytest.param("http://[::a9fe:a9fe]/", id="compatible-v4"),
        pytest.param("http://[::ffff:0:a9fe:a9fe]/", id="translated-v4"),
    ],
)
def test_all_other_addresses_are_refused_however_they_are_written(url: str) -> None:
    with pytest.raises(Refused, match=r"server\.egress\.allow"):
        check_url(url, NOTHING)


@pytest.mark.parametrize(
    "host",
    [
        "\uff11\uff16\uff19.254.169.254",  # full-width digits
        "\u2460\u2465\u2468.254.169.254",  # digits in circles
        "192\u30020\u30022\u30022",  # ideographic full stops
        "169%2e254.169.254",
        "exa mple.com",
        "bücher.example",
    ],
)
def test_a_host_that_others_would_fold_into_an_address_is_refused(host: str) -> None:
    with pytest.raises(Refused, match="ASCII"):
        check_url(f"http://{host}/v1", NOTHING)


@pytest.mark.parametrize(
    ("entry", "host", "listed"),
    [
        ("vllm", "vllm", True),
        ("vllm", "VLLM.", True),
        ("vllm", "vllm2", False),
        ("gpu.corp.example", "gpu.corp.example", True),
        ("*.corp.example", "a.b.corp.example", True),
        ("*.corp.example", "corp.example", False),
        ("*.corp.example", "evilcorp.example", False),
        ("*.svc.cluster.local", "vllm.models.svc.cluster.local", True),
        ("*.svc.cluster.local", "vllm.models.svc", True),
        ("*.models.svc.cluster.local", "vllm", True),
        ("*.other.svc.cluster.local", "vllm", False),
        ("*.svc.cluster.local", "evil.example.com", False),
    ],
)
def test_a_name_is_listed_as_the_cluster_would_read_it(entry: str, host: str, listed: bool) -> None:
    """Short names and `.svc` names are completed by the search domains; a name that could be public never is."""
    assert Allowed.of([entry], search=CLUSTER).name(host) is listed


@pytest.mark.parametrize("entry", ["", "*", "a b", "http://vllm", "vllm:8000", "10.0.0.0/99", "..", "*.*.com", "a..b"])
def test_an_entry_that_is_neither_name_nor_network_is_said(entry: str) -> None:
    with pytest.raises(ValueError, match="host name"):
        Allowed.of([entry])


def test_a_listed_network_opens_its_addresses_and_no_others() -> None:
    allowed = Allowed.of(["10.1.0.0/16", "169.254.169.254", "fd00::/8", "[2001:db8::1]"])
    check_url("http://10.1.2.3/v1", allowed)
    check_url("http://169.254.169.254/", allowed)
    check_url("http://[fd00::7]/v1", allowed)
    with pytest.raises(Refused):
        check_url("http://10.2.0.1/v1", allowed)


def test_a_listed_name_does_not_open_the_metadata_service() -> None:
    """Whoever rules the name's zone could point it there."""
    with pytest.raises(Refused, match="link-local"):
        check_address("vllm", ipaddress.ip_address("169.254.169.254"), Allowed.of(["vllm"]))
    check_address("vllm", ipaddress.ip_address("10.0.0.5"), Allowed.of(["vllm"]))


async def test_a_name_is_judged_by_what_it_resolves_to() -> None:
    resolver = guarded(NOTHING, Told("10.0.0.5", "93.184.216.34"))
    assert [found["host"] for found in await resolver.resolve("example.com", 443)] == ["93.184.216.34"]
    with pytest.raises(Refused, match=r"rebound\.example \(10\.0\.0\.5\) is private"):
        await guarded(NOTHING, Told("10.0.0.5")).resolve("rebound.example", 443)


async def test_a_call_to_a_name_with_a_private_address_fails_without_connecting() -> None:
    sessions = HttpSessions(resolver=Told("10.255.255.1"))
    expert = OpenAIExpert("x", "http://gpu.example/v1", "m", session=sessions.to("http://gpu.example/v1"))
    with pytest.raises(ExpertFailed) as failed, capture_logs() as logged:
        await anext(aiter(expert.open(Prompt({"messages": []}, stream=False), deadline_s=float("inf"))))
    assert (failed.value.kind, failed.value.message) == ("connect", "the expert could not be reached")
    assert [(one["event"], "10.255.255.1" in one["reason"]) for one in logged] == [("expert.address_refused", True)]
    await sessions.aclose()


def test_an_address_that_is_refused_is_refused_before_the_first_call() -> None:
    with pytest.raises(Refused):
        HttpSessions().to("http://10.0.0.5/v1")


async def test_experts_are_reached_through_the_proxy_and_this_machine_directly() -> None:
    seen: list[str] = []

    async def proxy(request: web.BaseRequest) -> web.Response:
        seen.append(str(request.url))
        return web.json_response({"choices": [{"message": {"content": "by proxy"}}]})

    runner = web.ServerRunner(web.Server(proxy))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    egress = Egress(proxy=f"http://127.0.0.1:{port}", direct=Allowed.of(["inside.example"]))
    sessions = HttpSessions(egress=egress)
    expert = OpenAIExpert("x", "http://llm.example/v1", "m", session=sessions.to("http://llm.example/v1"))
    chunk = await anext(aiter(expert.open(Prompt({"messages": []}, stream=False), deadline_s=float("inf"))))
    assert chunk.event["choices"][0]["message"]["content"] == "by proxy"
    assert seen == ["http://llm.example/v1/chat/completions"]
    assert egress.proxy_for("http://127.0.0.1:11434/v1") is egress.proxy_for("http://inside.example/v1") is None
    await sessions.aclose()
    await runner.cleanup()


def test_a_ca_of_ones_own_is_trusted_beside_the_systems(tmp_path: Path) -> None:
    own = tmp_path / "ca.pem"
    own.write_text(certificate())
    context = Egress(ca_file=own).tls()
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert any(("commonName", "Test CA") in name for ca in context.get_ca_certs() for name in ca["subject"])


def test_a_file_that_is_no_certificate_is_said(tmp_path: Path) -> None:
    own = tmp_path / "ca.pem"
    own.write_text("no certificate")
    with pytest.raises(OSError, match=r"^server\.egress\.ca_file: .*ca\.pem holds no CA certificate"):
        Egress(ca_file=own).tls()
    with pytest.raises(OSError, match=r"^server\.egress\.ca_file: .*none\.pem cannot be read: No such file"):
        Egress(ca_file=tmp_path / "none.pem").tls()


def test_the_search_domains_are_the_last_line_of_their_kind(tmp_path: Path) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 10.0.0.10\nsearch a.example\nsearch models.svc.cluster.local svc.cluster.local\n")
    assert search_domains(conf) == ["models.svc.cluster.local", "svc.cluster.local"]
    assert search_domains(tmp_path / "absent") == ()


def certificate() -> str:
    """A self-signed CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Test CA")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    return built.public_bytes(serialization.Encoding.PEM).decode()
