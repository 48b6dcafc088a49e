"""Where an auditor who reads the stores keeps the index."""

from pathlib import Path

from secure_cache.cli.main import run
from secure_cache.compose.audit_offline import offline_index_path
from secure_cache.settings import load_settings


def test_it_is_the_servers_own_unless_that_cannot_be_written(tmp_path):
    assert run(["init", str(tmp_path / "server")], {}) == 0
    settings = load_settings(tmp_path / "server/secure-cache.toml", {})
    own = tmp_path / "server/data/audit/index.sqlite"
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert offline_index_path(settings, None, cache) == own
    given = Path("mine.sqlite")
    read_only = {"can_write": lambda folder: folder != own.parent}
    assert offline_index_path(settings, given, cache, **read_only) == given
    elsewhere = offline_index_path(settings, None, cache, **read_only)
    assert elsewhere.parent == tmp_path / "cache/secure-cache"
    assert elsewhere.parent.stat().st_mode & 0o077 == 0
    assert offline_index_path(settings, None, cache, **read_only) == elsewhere
