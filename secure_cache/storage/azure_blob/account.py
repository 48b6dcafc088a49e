"""One storage account of one process: its connections, its identity and its memory."""

import asyncio
import logging
import ssl
from typing import Final, Self

import aiohttp
from azure.storage.blob.aio import BlobServiceClient, ContainerClient

from secure_cache.model.clock import Clock, system_clock
from secure_cache.model.errors import Misconfigured
from secure_cache.storage.azure_blob.budget import ByteBudget
from secure_cache.storage.azure_blob.container import Container
from secure_cache.storage.azure_blob.credentials import (
    AnyCredential,
    check_credential,
    make_credential,
)
from secure_cache.storage.azure_blob.endpoint import Endpoint, endpoint_of
from secure_cache.storage.azure_blob.errors import AzureFault, Kind
from secure_cache.storage.azure_blob.options import API_VERSION, MIB, AzureOptions
from secure_cache.storage.azure_blob.retry import Calls, Tell, Timing
from secure_cache.storage.azure_blob.store import AzureStore
from secure_cache.storage.azure_blob.transport import PacedTransport, Sockets
from secure_cache.storage.ports import check_name

_KEEP_ALIVE_SECONDS: Final = 30.0
_DNS_SECONDS: Final = 60
_CONNECT_SECONDS: Final = 5
_SINGLE_REQUEST_BYTES: Final = 64 * MIB


def _ignore(_call: object) -> None:
    """The default for `tell`."""


class AzureAccount:
    """Opens connections at the first request, in the event loop that makes it, and keeps them.

    Stores share the account. It is closed by `close`, or by the last of its stores.
    """

    def __init__(
        self, options: AzureOptions, endpoint: Endpoint, *, tell: Tell, timing: Timing
    ) -> None:
        """See `connect`."""
        self.options = options
        self.endpoint = endpoint
        self.uploads = ByteBudget(options.upload_bytes)
        self.read_ahead = ByteBudget(options.read_ahead_bytes)
        self.timing = timing
        self._tell = tell
        self._stores: set[AzureStore] = set()
        self._session: _Session | None = None

    @classmethod
    def connect(
        cls,
        options: AzureOptions,
        *,
        tell: Tell = _ignore,
        clock: Clock = system_clock,
        timing: Timing | None = None,
    ) -> Self:
        """Check the options. No I/O yet.

        Args:
            options: which account, as whom.
            tell: called once for each finished request of any store, in the event loop.
            clock: for `Retry-After` dates and the storage's clock skew.
            timing: how to wait, for tests.

        Raises:
            Misconfigured: the options contradict each other or lack something.
        """
        check_credential(options)
        endpoint = endpoint_of(options)
        # The SDK writes the path of each request at INFO: namespaces and keys; and at WARNING the
        # answers of the token service. What matters of them is in our own errors.
        logging.getLogger("azure").setLevel(logging.ERROR)
        return cls(options, endpoint, tell=tell, timing=timing or Timing(clock=clock))

    def store(
        self,
        container: str,
        prefix: str = "",
        *,
        name: str,
        must_replace: bool = False,
        must_delete: bool = False,
    ) -> AzureStore:
        """An ObjectStore in a container, or under a name prefix of it. No I/O yet.

        Args:
            container: must exist; `create_container` makes it.
            prefix: empty, or a legal name ending in a slash.
            name: of the store, for messages and metrics.
            must_replace: `check` demands that objects can be replaced.
            must_delete: `check` demands that objects can be deleted.
        """
        if prefix:
            check_name(prefix.removesuffix("/"))
            if not prefix.endswith("/"):
                raise Misconfigured(f"the prefix {prefix!r} of a store does not end in a slash")
        calls = Calls(name, self.options.patience, self._tell, self.timing)
        store = AzureStore(
            Container(container, prefix, lambda: self.container(container), calls),
            uploads=self.uploads,
            read_ahead=self.read_ahead,
            must_replace=must_replace,
            must_delete=must_delete,
            released=self._released,
        )
        self._stores.add(store)
        return store

    def container(self, name: str) -> ContainerClient:
        """The client of one container, of the running event loop.

        Raises: Misconfigured (a CA file that cannot be read).
        """
        return self._running().container(name)

    async def create_container(self, name: str) -> bool:
        """Make a private container; False when it was there already.

        Raises: StorageForbidden, StorageUnavailable, Misconfigured.
        """
        calls = Calls("account", self.options.patience, self._tell, self.timing)
        try:
            await calls.run(
                "create-container",
                self.options.patience.write,
                lambda: self.container(name).create_container(),
            )
        except AzureFault as fault:
            if fault.kind is Kind.EXISTS:
                return False
            raise fault.public("create container", name, write=True) from fault
        return True

    async def close(self) -> None:
        """Close every connection. What is used afterwards opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _released(self, store: AzureStore) -> None:
        """A store was closed; the last one closes the account."""
        self._stores.discard(store)
        if not self._stores:
            await self.close()

    def _running(self) -> "_Session":
        loop = asyncio.get_running_loop()
        if self._session is None:
            self._session = _Session(self.options, self.endpoint, loop)
        elif self._session.loop is not loop:
            raise Misconfigured("an Azure account was used from two event loops")
        return self._session


class _Session:
    """The connections, the service client and the identity; made and closed together."""

    def __init__(
        self, options: AzureOptions, endpoint: Endpoint, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.loop = loop
        context = _tls(options) if endpoint.url.startswith("https://") else None
        self._credential: AnyCredential = make_credential(options, endpoint)
        self._sockets = Sockets()
        self._http = aiohttp.ClientSession(
            # The context belongs to the connector: given to the SDK as `connection_verify`, it
            # would be built, and the connection made anew, for each request.
            connector=aiohttp.TCPConnector(
                limit=options.connections,
                keepalive_timeout=_KEEP_ALIVE_SECONDS,
                ttl_dns_cache=_DNS_SECONDS,
                ssl=True if context is None else context,
                socket_factory=self._sockets.make,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )
        self._service = BlobServiceClient(
            endpoint.url,
            credential=self._credential,
            transport=PacedTransport(session=self._http, session_owner=False),
            api_version=API_VERSION,
            retry_total=0,
            redirect_max=0,
            permit_redirects=False,
            connection_timeout=_CONNECT_SECONDS,
            # Each attempt has a deadline of its own; this one only backs it.
            read_timeout=options.patience.piece.seconds,
            max_single_put_size=_SINGLE_REQUEST_BYTES,
            max_single_get_size=_SINGLE_REQUEST_BYTES,
            max_chunk_get_size=_SINGLE_REQUEST_BYTES,
        )
        self._containers: dict[str, ContainerClient] = {}

    def container(self, name: str) -> ContainerClient:
        client = self._containers.get(name)
        if client is None:
            client = self._containers[name] = self._service.get_container_client(name)
        return client

    async def close(self) -> None:
        """The service client before the session that it sends through, the identity last."""
        await self._service.close()
        await self._http.close()
        await self._sockets.close()
        close = getattr(self._credential, "close", None)
        if close is not None:
            await close()


def _tls(options: AzureOptions) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(
            cafile=None if options.ca_file is None else str(options.ca_file)
        )
    except (OSError, ssl.SSLError) as error:
        raise Misconfigured(
            f"storage.ca_file {options.ca_file}: {type(error).__name__}: no usable certificate"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
