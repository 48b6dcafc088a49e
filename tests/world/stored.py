"""What a server stores, in the hands of somebody who can write its store: a folder, or a container
of a real Azurite. Names are as in the folder, wherever it is."""

import fnmatch
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient
    from world.azurite import Azurite

_OF_THE_LOG = ("tiles", "head", "pending")
"""Stores that are one in a folder, called `log` there."""


class Stored(Protocol):
    """Objects by name, such as `log/tile/0/000` or `records/demo/...`."""

    def names(self, pattern: str = "*") -> list[str]:
        """Of this shell pattern, whose `*` takes in slashes; what was written last comes last."""
        ...

    def read(self, name: str) -> bytes: ...

    def write(self, name: str, data: bytes) -> None: ...

    def delete(self, name: str) -> None: ...

    def versions(self) -> dict[str, object]:
        """Of each object: what no write leaves as it was, not even one of the same bytes."""
        ...

    def copy(self, folder: Path) -> None:
        """All of it, for `put_back`."""
        ...

    def put_back(self, folder: Path) -> None:
        """Whoever does it has all rights, and leaves nothing of what came later."""
        ...


class InFolder:
    """The data folder of an installation. Its index is none of the objects, and is copied."""

    def __init__(self, data: Path) -> None:
        self._data = data

    def names(self, pattern: str = "*") -> list[str]:
        found = [
            (path.stat().st_mtime_ns, name)
            for path in self._data.rglob("*")
            if path.is_file()
            and not {".tmp", ".locks"} & set(path.parts)
            and fnmatch.fnmatchcase(name := path.relative_to(self._data).as_posix(), pattern)
            and not name.startswith("audit/")
        ]
        return [name for _, name in sorted(found)]

    def read(self, name: str) -> bytes:
        return (self._data / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        path = self._data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            # Stored files are read-only, which stops nobody who owns them.
            path.chmod(0o600)
        path.write_bytes(data)

    def delete(self, name: str) -> None:
        (self._data / name).unlink()

    def versions(self) -> dict[str, object]:
        return {
            name: (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_mode)
            for name in self.names()
            for status in [(self._data / name).stat()]
        }

    def copy(self, folder: Path) -> None:
        shutil.copytree(self._data, folder)

    def put_back(self, folder: Path) -> None:
        shutil.rmtree(self._data)
        shutil.copytree(folder, self._data)


class InContainer:
    """By the account's key, whatever the server itself may do."""

    def __init__(self, azurite: "Azurite", container: str) -> None:
        self._azurite = azurite
        self._container = container
        self._blobs: dict[str, str] = {}
        """Of the log: the blob, also when it was deleted since, by its name in a folder."""

    def names(self, pattern: str = "*") -> list[str]:
        with self._azurite.reached(self._container) as container:
            found = [
                (blob.last_modified, name)
                for blob in container.list_blobs()
                if fnmatch.fnmatchcase(name := _as_in_a_folder(blob.name), pattern)
            ]
        return [name for _, name in sorted(found)]

    def read(self, name: str) -> bytes:
        with self._azurite.reached(self._container) as container:
            return container.download_blob(self._blob(container, name)).readall()

    def write(self, name: str, data: bytes) -> None:
        with self._azurite.reached(self._container) as container:
            container.upload_blob(self._blob(container, name), data, overwrite=True)

    def delete(self, name: str) -> None:
        with self._azurite.reached(self._container) as container:
            container.delete_blob(self._blob(container, name))

    def _blob(self, container: "ContainerClient", name: str) -> str:
        store, _, rest = name.partition("/")
        if store != "log":
            return name
        if name not in self._blobs:
            blobs = [f"{place}/{rest}" for place in _OF_THE_LOG]
            self._blobs[name] = next(
                blob for blob in blobs if container.get_blob_client(blob).exists()
            )
        return self._blobs[name]

    def versions(self) -> dict[str, object]:
        with self._azurite.reached(self._container) as container:
            return {_as_in_a_folder(blob.name): blob.etag for blob in container.list_blobs()}

    def copy(self, folder: Path) -> None:
        with self._azurite.reached(self._container) as container:
            for name in container.list_blob_names():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(container.download_blob(name).readall())

    def put_back(self, folder: Path) -> None:
        with self._azurite.reached(self._container) as container:
            for name in container.list_blob_names():
                container.delete_blob(name)
            for path in folder.rglob("*"):
                if path.is_file():
                    container.upload_blob(path.relative_to(folder).as_posix(), path.read_bytes())


def _as_in_a_folder(name: str) -> str:
    store, _, rest = name.partition("/")
    return f"log/{rest}" if store in _OF_THE_LOG else name
