"""Put policy and keys where the server wants them, with the modes that it wants.

For platforms that mount secrets with owners and modes of their own, as an init container of the
same image and user:

    place_files.py --policy MOUNTED POLICY --keys MOUNTED FOLDER

A key folder travels as one text, so that it changes as a whole:

    place_files.py --pack FOLDER > keys.json

which is a JSON object of file names and contents, as small as a Key Vault secret must be.
"""

import argparse
import json
import os
import re
import sys
from pathlib import Path

MAX_BYTES = 25_000
"""Of a Key Vault secret. Ten rotations of both keys take about half."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def pack(folder: Path) -> str:
    """The text of a key folder.

    Raises:
        ValueError: a name that no key file has, or too much of it.
    """
    files = {path.name: path.read_text("ascii") for path in sorted(folder.iterdir())}
    _check(files)
    text = json.dumps(files, separators=(",", ":"))
    if len(text) > MAX_BYTES:
        raise ValueError(f"{len(text)} characters: a Key Vault secret holds {MAX_BYTES}")
    return text


def place_keys(text: str, folder: Path) -> None:
    """The inverse of `pack`: FOLDER with mode 0700, its files 0600. It must not exist.

    Raises:
        ValueError: the text is no key folder.
        OSError: it cannot be written.
    """
    files = json.loads(text)
    if not isinstance(files, dict):
        raise ValueError("not a key folder")  # noqa: TRY004 - one error for the caller
    _check(files)
    folder.mkdir(mode=0o700)
    for name, content in files.items():
        place_file(content, folder / name)


def place_file(content: str, path: Path) -> None:
    """PATH with mode 0600. It must not exist.

    Raises:
        OSError: it cannot be written.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(content)


def _check(files: dict[str, object]) -> None:
    for name, content in files.items():
        if _NAME.fullmatch(name) is None or not isinstance(content, str):
            raise ValueError(f"{name[:40]!r} is no key file")
    if "keys.json" not in files:
        raise ValueError("no keys.json in it: not a key folder")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pack", type=Path, metavar="FOLDER")
    parser.add_argument("--policy", type=Path, nargs=2, metavar=("MOUNTED", "POLICY"))
    parser.add_argument("--keys", type=Path, nargs=2, metavar=("MOUNTED", "FOLDER"))
    given = parser.parse_args(arguments)
    try:
        if given.pack is not None:
            sys.stdout.write(pack(given.pack))
        if given.policy is not None:
            place_file(given.policy[0].read_text("utf-8"), given.policy[1])
        if given.keys is not None:
            place_keys(given.keys[0].read_text("utf-8"), given.keys[1])
    except (OSError, ValueError) as error:
        # Of a broken secret the error tells where, and never what.
        what = error.msg if isinstance(error, json.JSONDecodeError) else error
        sys.stderr.write(f"place_files: {what}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
