"""Write the generated tables of docs/operations.md anew: settings and metrics.

Usage: python scripts/docs_tables.py [--check]     (--check changes nothing, exits 1 if stale)
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from msgspec import NODEFAULT, Meta, Struct
from msgspec.structs import FieldInfo, fields
from prometheus_client import CollectorRegistry

from secure_cache.observability.metrics import Metrics
from secure_cache.settings import Settings

MANUAL = Path(__file__).resolve().parents[1] / "docs" / "operations.md"
_PROCESS = "process_"


def settings_table() -> str:
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    rows += [f"| `{name}` | {default} | {text} |" for name, default, text in _settings(Settings)]
    return "\n".join(rows)


def _settings(struct: type[Struct], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    for info in fields(struct):
        name = prefix + info.encode_name
        if isinstance(info.type, type) and issubclass(info.type, Struct):
            yield from _settings(info.type, name + ".")
        else:
            yield name, _default(info), _description(info)


def _default(info: FieldInfo) -> str:
    if info.default is NODEFAULT:
        return "required"
    if info.default is None:
        return "none"
    text = str(info.default).lower() if isinstance(info.default, bool) else repr(info.default)
    return f"`{text}`".replace("'", '"')


def _description(info: FieldInfo) -> str:
    (meta,) = [item for item in get_args(info.type)[1:] if isinstance(item, Meta)]
    text = meta.description or ""
    bounds = []
    if meta.ge is not None:
        bounds.append(f"from {meta.ge}")
    if meta.gt is not None:
        bounds.append(f"above {meta.gt}")
    if meta.le is not None:
        bounds.append(f"to {meta.le}")
    if bounds:
        text += f" ({' '.join(bounds)})"
    return text.replace("|", "\\|")


def metrics_table() -> str:
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for name, kind, labels, text in sorted(_metrics()):
        shown = ", ".join(f"`{label}`" for label in labels)
        rows.append(f"| `{name}` | {kind} | {shown} | {text} |")
    return "\n".join(rows)


def _metrics() -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    registry: CollectorRegistry = Metrics()._registry  # noqa: SLF001 - what it serves is in there
    collectors: list[Any] = list(registry._collector_to_names)  # noqa: SLF001
    for collector in collectors:
        name = getattr(collector, "_name", _PROCESS)
        if name.startswith(_PROCESS):
            continue
        kind = type(collector).__name__.lower()
        ending = "_total" if kind == "counter" else ""
        yield name + ending, kind, collector._labelnames, collector._documentation  # noqa: SLF001


def fresh(text: str) -> str:
    """The manual with its tables as they should be."""
    for name, table in (("settings", settings_table()), ("metrics", metrics_table())):
        pattern = rf"(<!-- {name}: written by scripts/docs_tables.py -->\n).*?(<!-- end -->)"
        text, count = re.subn(
            pattern,
            lambda match, table=table: match[1] + table + "\n" + match[2],
            text,
            flags=re.DOTALL,
        )
        if count != 1:
            raise SystemExit(f"{MANUAL} has {count} places for the table of {name}")
    return text


def main() -> int:
    text = MANUAL.read_text(encoding="utf-8")
    wanted = fresh(text)
    if "--check" in sys.argv[1:]:
        return int(text != wanted)
    MANUAL.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
