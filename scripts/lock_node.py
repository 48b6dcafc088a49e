"""Make an npm lock portable: names, versions and hashes, and not one address.

npm writes funding links, some licences as links, and leaves out an optional package of another
platform when its registry does not offer it; `npm ci` then refuses the lock. Such a package is
named here with its version and platform and without a hash: a Linux machine with glibc, where the
tests run, never installs it.
"""

import json
import sys
from pathlib import Path
from typing import Any

_CPUS = {"arm64", "x64"}
_SYSTEMS = {"darwin", "freebsd", "win32", "linux"}


def _platform(name: str) -> dict[str, list[str]]:
    words = set(name.rpartition("/")[2].split("-"))
    found = {"os": sorted(words & _SYSTEMS), "cpu": sorted(words & _CPUS) or ["arm"]}
    if "musl" in words:
        found["libc"] = ["musl"]
    return found


def portable(lock: dict[str, Any]) -> dict[str, Any]:
    """`lock` without addresses, and with every optional package."""
    packages = lock["packages"]
    for package in packages.values():
        package.pop("funding", None)
        package.pop("resolved", None)
        if "://" in str(package.get("license")):
            package.pop("license")
    for package in list(packages.values()):
        for name, version in package.get("optionalDependencies", {}).items():
            path = f"node_modules/{name}"
            if path not in packages:
                packages[path] = {"version": version, "optional": True, **_platform(name)}
    root = packages.pop("")
    lock["packages"] = {"": root, **dict(sorted(packages.items()))}
    return lock


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        file = Path(argument)
        text = json.dumps(portable(json.loads(file.read_text())), indent=2, ensure_ascii=False)
        file.write_text(text + "\n")
