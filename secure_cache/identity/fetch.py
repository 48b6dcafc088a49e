"""One HTTPS GET of an issuer's keys, with every limit that a hostile or broken issuer needs.

The URL comes from the policy alone. The host's addresses are checked and the connection goes to
the address that was checked, so that a second answer of the name server can not lead inside
(DNS rebinding); TLS still proves the name. No redirects, no proxies from the environment, no
compressed bodies, 512 KiB, five seconds in all.
"""

import ipaddress
import socket
import ssl
from typing import Final, TypeAlias

import anyio
import httpx

from secure_cache.identity.keys import MAX_SET_BYTES
from secure_cache.model.errors import Misconfigured, Unavailable

DEADLINE_SECONDS: Final = 5.0

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_MAX_ADDRESSES_TRIED = 3
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_METADATA = frozenset(
    ipaddress.ip_address(text) for text in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200")
)


class KeyFetcher:
    """Fetches key sets.

    Args:
        tls: trust anchors; by default those of the system.
        deadline_seconds: for one fetch, with name resolution and all.
    """

    def __init__(
        self, tls: ssl.SSLContext | None = None, *, deadline_seconds: float = DEADLINE_SECONDS
    ) -> None:
        self._tls = tls or ssl.create_default_context()
        self._deadline = deadline_seconds

    async def fetch(self, url: str, *, allow_private: bool) -> bytes:
        """The document at `url`.

        Raises:
            Misconfigured: the URL itself, or an address of its host, is not allowed.
            Unavailable: no answer, another status than 200, too large, too slow.
        """
        try:
            with anyio.fail_after(self._deadline):
                return await self._fetch(check_url(url), allow_private=allow_private)
        except TimeoutError:
            raise Unavailable(f"no whole answer within {self._deadline:g} s") from None
        except httpx.HTTPError as error:
            raise Unavailable(f"the request failed: {type(error).__name__}: {error}") from None
        except (OSError, UnicodeError) as error:
            raise Unavailable(f"the host was not found: {error}") from None

    async def _fetch(self, url: httpx.URL, *, allow_private: bool) -> bytes:
        addresses = await _resolve(url)
        for address in addresses:
            check_address(address, scheme=url.scheme, allow_private=allow_private)
        # One dead address of several leaves time for the others.
        timeout = httpx.Timeout(self._deadline, connect=self._deadline / _MAX_ADDRESSES_TRIED)
        async with httpx.AsyncClient(
            verify=self._tls, trust_env=False, follow_redirects=False, timeout=timeout
        ) as client:
            last: httpx.TransportError | None = None
            for address in addresses[:_MAX_ADDRESSES_TRIED]:
                try:
                    return await _get(client, url, address)
                except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                    last = error
            raise last or Unavailable("the host has no address")


def check_url(url: str) -> httpx.URL:
    """A URL that may be fetched.

    Raises:
        Misconfigured: not http or https, no host, or with user information or a fragment.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise Misconfigured("the URL of an issuer's keys is not a URL") from None
    if parsed.scheme not in {"https", "http"} or not parsed.host:
        raise Misconfigured("the URL of an issuer's keys is not https://HOST/...")
    if parsed.userinfo or parsed.fragment:
        raise Misconfigured("the URL of an issuer's keys has user information or a fragment")
    if not 1 <= (parsed.port or 443) <= 65535:
        raise Misconfigured("the URL of an issuer's keys has an impossible port")
    return parsed


def check_address(address: Address, *, scheme: str, allow_private: bool) -> None:
    """Whether a host of ours may be connected to at this address.

    Private and loopback addresses need `allow_private`. Link-local, metadata, multicast and
    unspecified ones are never right. Plain http is for loopback only.

    Raises:
        Misconfigured: it may not.
    """
    inner = _embedded(address)
    never = inner.is_link_local or inner.is_multicast or inner.is_unspecified
    # ::1 counts as reserved too.
    reserved = inner.is_reserved and not inner.is_loopback
    if never or reserved or inner in _METADATA:
        raise Misconfigured(f"the issuer's host has the address {address}, which is never allowed")
    if not inner.is_global and not allow_private:
        raise Misconfigured(
            f"the issuer's host has the private address {address}: "
            "set allow_private: true on this issuer if it is your own"
        )
    if scheme != "https" and not (allow_private and inner.is_loopback):
        raise Misconfigured("plain http is for loopback with allow_private: use https")


def _embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 one leads to, else the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour or address


async def _resolve(url: httpx.URL) -> list[Address]:
    port = url.port or (443 if url.scheme == "https" else 80)
    found = await anyio.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
    # A zone (`%eth0`) only goes with link-local addresses, which are refused anyway.
    texts = dict.fromkeys(str(sockaddr[0]).partition("%")[0] for *_, sockaddr in found)
    return [ipaddress.ip_address(text) for text in texts]


async def _get(client: httpx.AsyncClient, url: httpx.URL, address: Address) -> bytes:
    request = client.build_request(
        "GET",
        url.copy_with(host=str(address)),
        headers={
            "Host": url.netloc.decode("ascii"),
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Connection": "close",
        },
        extensions={"sni_hostname": url.raw_host.decode("ascii")},
    )
    response = await client.send(request, stream=True)
    try:
        if response.status_code != 200:
            raise Unavailable(f"the issuer answered {response.status_code}")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise Unavailable("the issuer sent a compressed body")
        body = bytearray()
        async for block in response.aiter_raw():
            body += block
            if len(body) > MAX_SET_BYTES:
                raise Unavailable(f"the issuer's keys are larger than {MAX_SET_BYTES} bytes")
        return bytes(body)
    finally:
        await response.aclose()
