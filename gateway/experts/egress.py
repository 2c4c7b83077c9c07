"""Whom the gateway may connect to on behalf of experts, and through what: an allow-list, a proxy, a CA.

A policy may be edited by people who may not read what lies in the gateway's own network, so an expert's URL must not be
a way into it (server-side request forgery). Public addresses and loopback are open; all others (private networks,
link-local ones with the clouds' metadata services, multicast) only where `server.egress.allow` says so. Names are
judged by what they resolve to at the moment of connecting, so a name that changes its address gains nothing.
"""

import ipaddress
import re
import socket
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver, ResolveResult

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

NAT64: Final = ipaddress.ip_network("64:ff9b::/96")  # an IPv4 address in its last 32 bits (RFC 6052)
NEVER_PUBLIC: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            "168.63.129.16/32",  # Azure's own services for its machines
            "192.0.0.0/24",  # Oracle's metadata service
            "::/96",  # IPv4 addresses in forms that are no longer used: a router may still take them
            "::ffff:0:0:0/96",
            "64:ff9b:1::/48",  # NAT64 of a network's own
            "fec0::/10",  # site-local
        ),
    )
)
HOST: Final = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(?:%25[A-Za-z0-9._~-]+|%[A-Za-z0-9._~-]+)?")
PATTERN: Final = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_.-]{0,252}[a-z0-9_])?")
CLUSTER: Final = ".svc"  # how the names of Kubernetes services end, less the cluster's own domain
RESOLV_CONF: Final = Path("/etc/resolv.conf")


class Refused(OSError):
    """The address is not one that experts may be at. The message names the setting, never a path or a key."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What `server.egress.allow` lists: host names (`vllm`, `*.models.svc.cluster.local`), addresses, networks.

    `search` are the domains that the resolver appends to short names: with `svc.cluster.local` among them, a
    pattern of whole names covers `vllm.models.svc` too. Raises ValueError for an entry that is none of these.
    """

    names: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()
    search: tuple[str, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[str], *, search: Iterable[str] = ()) -> "Allowed":
        names, networks = [], []
        for entry in entries:
            try:
                networks.append(ipaddress.ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                names.append(_pattern(entry))
        return cls(tuple(names), tuple(networks), tuple(domain.rstrip(".").lower() for domain in search))

    def name(self, host: str) -> bool:
        """Whether the host is listed by name. A pattern's `*.` stands for one or more labels."""
        host = host.rstrip(".").lower()
        candidates = [host]
        if "." not in host or host.endswith(CLUSTER):  # no public name looks so; what it means is the cluster's to say
            candidates += [f"{host}.{domain}" for domain in self.search]
        return any(fnmatchcase(name, pattern) for name in candidates for pattern in self.names)

    def address(self, address: Address) -> bool:
        """Whether the address is listed."""
        return any(address in network for network in self.networks if network.version == address.version)


def _pattern(entry: str) -> str:
    pattern = entry.rstrip(".").lower()
    if not PATTERN.fullmatch(pattern) or ".." in pattern:
        raise ValueError(
            f"{entry!r} is no host name, *.domain, address or network (such as vllm, *.svc.cluster.local, 10.0.0.0/8)"
        )
    return pattern


def check_address(host: str, address: Address, allowed: Allowed) -> None:
    """Raises Refused unless `host`, which is or resolves to `address`, may be connected to."""
    plain = _unwrapped(address)
    is_public = plain.is_global and not plain.is_multicast and not any(plain in network for network in NEVER_PUBLIC)
    if plain.is_loopback or is_public or allowed.address(plain) or allowed.address(address):
        return
    if plain.is_link_local:  # 169.254.169.254 and its like hand out credentials: a name alone does not open them
        kind = "link-local"
    elif allowed.name(host):
        return
    else:
        kind = "private" if plain.is_private else "not public"
    where = host if _literal(host) else f"{host} ({address})"
    raise Refused(f"{where} is {kind}; if an expert may be there, list it in server.egress.allow")


def check_url(url: str, allowed: Allowed) -> None:
    """Raises Refused for a URL whose host is an address that is not allowed; names are judged when they resolve.

    A host in other letters than ASCII is refused: those who connect would fold it, perhaps into an address.
    """
    host = urlsplit(url).hostname or ""
    if host and HOST.fullmatch(host) is None:
        raise Refused("the host must be written in ASCII letters, digits, dots and dashes (a foreign name as xn--...)")
    address = _literal(host)
    if address is not None:
        check_address(host, address, allowed)


def _literal(host: str) -> Address | None:
    """The address that a host is written as, in any spelling that a C library takes (`2130706433`, `0x7f.1`)."""
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0].rstrip("."))
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host.rstrip("."))) if host and host[0].isdigit() else None
    except OSError:
        return None


def _unwrapped(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one, where that is what is reached."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def search_domains(resolv_conf: Path = RESOLV_CONF) -> Sequence[str]:
    """The `search` (or `domain`) line of resolv.conf; empty if there is none."""
    try:
        lines = resolv_conf.read_text(errors="replace").splitlines()
    except OSError:
        return ()
    found = [line.split()[1:] for line in lines if line.split()[:1] in (["search"], ["domain"])]
    return found[-1] if found else ()


def guarded(allowed: Allowed, resolver: "AbstractResolver | None" = None) -> "AbstractResolver":
    """A resolver for aiohttp that gives only addresses that may be connected to, and raises Refused if none is left."""
    from aiohttp.abc import AbstractResolver  # noqa: PLC0415  aiohttp is imported when the first expert is made
    from aiohttp.resolver import DefaultResolver  # noqa: PLC0415  as above

    inner = resolver or DefaultResolver()

    class Guarded(AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> "list[ResolveResult]":
            good, why = [], None
            for found in await inner.resolve(host, port, family):
                try:
                    check_address(host, ipaddress.ip_address(found["host"].partition("%")[0]), allowed)
                    good.append(found)
                except Refused as error:
                    why = error
            if why is not None and not good:
                raise why
            return good

        async def close(self) -> None:
            await inner.close()

    return Guarded()


@dataclass(frozen=True, slots=True)
class Egress:
    """How experts are reached. `proxy` is an http:// URL, perhaps with credentials; hosts in `direct` go without it."""

    allowed: Allowed = Allowed()
    proxy: str | None = None
    direct: Allowed = Allowed()
    ca_file: Path | None = None

    def proxy_for(self, url: str) -> str | None:
        """The proxy of a URL; None for what is reached directly: loopback, and what `direct` lists."""
        host = urlsplit(url).hostname or ""
        address = _literal(host)
        if self.proxy is None or host == "localhost" or self.direct.name(host):
            return None
        return None if address is not None and (address.is_loopback or self.direct.address(address)) else self.proxy

    def tls(self) -> ssl.SSLContext | None:
        """The system's CAs and one's own; None where there is nothing to add. Raises OSError as `trust` does.

        Reading the system's takes 30 ms: once, at the start.
        """
        if self.ca_file is None:
            return None
        context = ssl.create_default_context()
        try:
            trust(context, self.ca_file)
        except OSError as error:
            raise OSError(f"server.egress.ca_file: {error}") from error
        return context


def trust(context: ssl.SSLContext, ca_file: Path) -> None:
    """Add the file's CAs. Raises OSError that names the file: ssl itself says only that there is no such one."""
    try:
        context.load_verify_locations(cafile=ca_file)
    except ssl.SSLError as error:
        raise OSError(f"{ca_file} holds no CA certificate in PEM form") from error
    except OSError as error:
        raise OSError(f"{ca_file} cannot be read: {error.strerror}") from error
