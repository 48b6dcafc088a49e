"""Settings: what is read, and the one line that each mistake gets."""

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields

from secure_cache.model.errors import Misconfigured
from secure_cache.settings import Settings, default_toml, load_settings

LEAST = """
policy = "policy.yaml"
keys = "keys"
[storage]
path = "data"
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "secure-cache.toml"
    path.write_text(LEAST)
    return path


def refusal(path, environ=None):
    with pytest.raises(Misconfigured) as caught:
        load_settings(path, environ or {})
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_the_least_file_gives_all_defaults_and_absolute_paths(file, tmp_path):
    settings = load_settings(file, {})
    assert settings.policy == tmp_path / "policy.yaml"
    assert settings.keys == tmp_path / "keys"
    assert settings.storage.path == tmp_path / "data"
    assert settings.policy_tests is None
    assert settings.server.port == 8642
    assert settings.limits.max_artifact_bytes == 2 * 1024**3
    assert settings.server.keep_alive_seconds == 125


def test_relative_paths_belong_to_the_file_and_not_to_the_working_folder(
    file, tmp_path, monkeypatch
):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_settings(Path("../secure-cache.toml"), {}).keys.resolve() == tmp_path / "keys"
    assert load_settings(file, {"SECURE_CACHE_KEYS": "/etc/k"}).keys == Path("/etc/k")


def test_the_environment_overrides_the_file(file):
    file.write_text(LEAST + "[server]\nport = 1\n")
    environ = {
        "SECURE_CACHE_SERVER__PORT": "9000",
        "SECURE_CACHE_SERVER__STRICT_STATUS": "true",
        "SECURE_CACHE_LIMITS__GRACE_SECONDS": "2.5",
        "SECURE_CACHE_POLICY": "other.yaml",
    }
    settings = load_settings(file, environ)
    assert settings.server.port == 9000
    assert settings.server.strict_status is True
    assert settings.limits.grace_seconds == 2.5
    assert settings.policy == file.parent / "other.yaml"


def test_the_variables_of_the_client_commands_are_not_settings(file):
    environ = {"SECURE_CACHE_SERVER": "https://cache", "SECURE_CACHE_TOKEN": "t"}
    assert load_settings(file, environ) == load_settings(file, {})


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ("[server]\nprot = 1", ["server.prot", "did you mean server.port?"]),
        ("[sever]\nport = 1", ["'sever'", "did you mean server?"]),
        ("[limits]\nzzz = 1", ["limits.zzz", "known here: limits.max_artifact_bytes"]),
        ('[server]\nport = "80"', ["server.port = '80'", "Expected `int`", "Port"]),
        ("[server]\nport = 70000", ["server.port = 70000", "<= 65535"]),
        ("[server]\nkeep_alive_seconds = 60", ["server.keep_alive_seconds = 60", "Nx pools"]),
        ("[limits]\nmax_header_bytes = 8192", ["limits.max_header_bytes = 8192", ">= 16384"]),
        ("[limits]\ngrace_seconds = nan", ["limits.grace_seconds = nan", "> 0"]),
        ("[limits]\ngrace_seconds = inf", ["limits.grace_seconds = inf"]),
        ('[server]\nroot_path = "cache/"', ["server.root_path = 'cache/'"]),
        ('[logging]\nlevel = "loud"', ["logging.level = 'loud'", "debug, info"]),
        ("server = 3", ["server is a section", "[server]"]),
        ("[server]\nport = 1\nport = 2", ["not valid TOML", "Cannot overwrite"]),
    ],
)
def test_a_mistake_names_file_setting_value_and_remedy(file, added, expected):
    head, _, tail = LEAST.partition("[storage]")
    text = head + added + "\n[storage]" + tail if added.startswith("server =") else LEAST + added
    file.write_text(text)
    message = refusal(file)
    assert message.startswith(str(file))
    for part in expected:
        assert part in message


@pytest.mark.parametrize("name", ["policy", "keys"])
def test_what_has_no_safe_default_must_be_given(file, name):
    file.write_text("\n".join(line for line in LEAST.splitlines() if not line.startswith(name)))
    assert f"{name} is missing and has no safe default" in refusal(file)


@pytest.mark.parametrize(
    ("storage", "expected"),
    [
        ("", "storage.path is missing: kind filesystem needs it"),
        ('kind = "azure"', "storage.container is missing: kind azure needs it"),
        (
            'path = "d"\ncontainer = "nx-cache"',
            "storage.container does not belong to kind filesystem",
        ),
        (
            'kind = "azure"\ncontainer = "nx-cache"\npath = "d"',
            "storage.path does not belong to kind azure",
        ),
        ('kind = "s3"', "storage.kind = 's3'"),
        ('path = ""', "storage.path = ''"),
        ("path = 3", "storage.path = 3"),
    ],
)
def test_the_fields_of_one_storage_do_not_mix_with_those_of_another(file, storage, expected):
    file.write_text('policy = "p"\nkeys = "k"\n[storage]\n' + storage)
    assert expected in refusal(file)


AZURE = """
policy = "p"
keys = "k"
[storage]
kind = "azure"
"""


def azure(file, text, environ=None):
    file.write_text(AZURE + text)
    return load_settings(file, environ or {}).storage


def test_azure_is_written_as_the_nx_plugin_writes_it(file):
    storage = azure(file, 'container = "nx-cache"\naccountName = "myaccount"\n')
    assert (storage.kind, storage.container) == ("azure", "nx-cache")
    assert (storage.account_name, storage.credential) == ("myaccount", None)


def test_each_store_may_have_a_container_of_its_own(file):
    text = 'container = "nx-cache"\n[storage.containers]\ntiles = "nx-tiles"\n'
    storage = azure(file, text, {"SECURE_CACHE_STORAGE__CONTAINERS__HEAD": "nx-head"})
    own = storage.containers
    assert (own.tiles, own.head, own.artifacts) == ("nx-tiles", "nx-head", None)


def test_with_six_of_their_own_no_other_container_is_needed(file):
    stores = ("artifacts", "records", "tiles", "head", "pending", "state")
    text = "[storage.containers]\n" + "".join(f'{name} = "nx-{name}"\n' for name in stores)
    assert azure(file, text).containers.state == "nx-state"
    assert "storage.container is missing" in refusal_of(file, text.replace("state", "#"))


def refusal_of(file, text, environ=None):
    file.write_text(AZURE + text)
    return refusal(file, environ)


def test_azure_may_be_overridden_by_the_environment(file):
    environ = {
        "SECURE_CACHE_STORAGE__CONTAINER": "other",
        "SECURE_CACHE_STORAGE__ACCOUNTNAME": "another",
        "SECURE_CACHE_STORAGE__CREDENTIAL": "workload-identity",
        "SECURE_CACHE_STORAGE__ROLE_WAIT_SECONDS": "0",
        "SECURE_CACHE_STORAGE__REQUIRE_WORM": "true",
        "SECURE_CACHE_STORAGE__CA_FILE": "ca.pem",
        "SECURE_CACHE_LOCAL_TIER__PATH": "tier",
        "SECURE_CACHE_LOCAL_TIER__MAX_BYTES": "4194304",
    }
    storage = azure(file, 'container = "nx-cache"\n', environ)
    assert (storage.container, storage.account_name) == ("other", "another")
    assert (storage.credential, storage.role_wait_seconds) == ("workload-identity", 0)
    assert (storage.require_worm, storage.ca_file) == (True, file.parent / "ca.pem")
    tier = load_settings(file, environ).local_tier
    assert (tier.path, tier.max_bytes) == (file.parent / "tier", 4194304)


def test_there_is_no_local_tier_unless_it_is_asked_for(file):
    assert load_settings(file, {}).local_tier.path is None


@pytest.mark.parametrize(
    "name",
    ["ab", "a" * 64, "Upper", "two--hyphens", "-start", "end-", "under_score", "a.b", "a\\n"],
)
@pytest.mark.parametrize("setting", ["container", "containers.tiles"])
def test_a_name_that_no_container_can_have_is_refused(file, name, setting):
    text = f'container = "nx-cache"\n[storage.containers]\ntiles = "{name}"\n'
    if setting == "container":
        text = f'container = "{name}"\n'
    assert f"storage.{setting} = " in refusal_of(file, text)


@pytest.mark.parametrize("name", ["ab", "a" * 25, "Account", "my-account", "acc.blob.evil.com", ""])
def test_a_name_that_no_account_can_have_is_refused(file, name):
    text = f'container = "nx-cache"\naccountName = "{name}"\n'
    assert "storage.accountName = " in refusal_of(file, text)


@pytest.mark.parametrize(
    ("containers", "store"),
    [
        ('tiles = "one"\nhead = "one"', "tiles"),
        ('records = "nx-cache"', "records"),
    ],
)
def test_no_two_stores_may_stand_in_the_middle_of_each_other(file, containers, store):
    text = f'container = "nx-cache"\n[storage.containers]\n{containers}\n'
    message = refusal_of(file, text)
    assert f"storage.containers.{store} = " in message
    assert "another store too" in message


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://cache.blob.core.usgovcloudapi.net",
        "https://10.0.0.4:10000/devstoreaccount1",
        "http://127.0.0.1:10000/devstoreaccount1",
        "http://[::1]:10000/devstoreaccount1",
        "http://localhost:10000/devstoreaccount1",
    ],
)
def test_an_endpoint_is_https_or_on_this_machine(file, endpoint):
    storage = azure(file, f'container = "nx-cache"\nendpoint = "{endpoint}"\n')
    assert storage.endpoint == endpoint


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://myaccount.blob.core.windows.net",
        "http://127.0.0.1.evil.com/",
        "http://localhost.evil.com/",
        "ftp://myaccount.blob.core.windows.net",
        "myaccount.blob.core.windows.net",
        "https://",
        "https://host:port/",
        "https://[::1/",
        "",
    ],
)
def test_any_other_endpoint_is_refused(file, endpoint):
    text = f'container = "nx-cache"\nendpoint = "{endpoint}"\n'
    assert "storage.endpoint" in refusal_of(file, text)


def test_a_signature_in_the_endpoint_is_refused_and_not_repeated(file):
    for secret in ("https://a.blob.core.windows.net/?sig=c2VjcmV0", "https://u:c2VjcmV0@host/"):
        message = refusal_of(file, f'container = "nx-cache"\nendpoint = "{secret}"\n')
        assert "c2VjcmV0" not in message


def test_a_credential_is_one_of_those_that_are_never_guessed(file):
    text = 'container = "nx-cache"\ncredential = "default"\n'
    assert "storage.credential = 'default'" in refusal_of(file, text)


@pytest.mark.parametrize(
    "line",
    [
        'credential = "azure-cli"',
        'endpoint = "https://x"',
        "require_worm = true",
        "role_wait_seconds = 3",
        'ca_file = "x"',
        "allow_account_key = true",
        '[storage.containers]\ntiles = "nx-tiles"',
    ],
)
def test_what_belongs_to_azure_does_not_belong_to_a_folder(file, line):
    file.write_text(LEAST + line)
    name = "containers" if "containers" in line else line.split(" ")[0]
    assert f"storage.{name} does not belong to kind filesystem" in refusal(file)


def test_the_file_that_init_writes_for_azure_loads(tmp_path):
    written = tmp_path / "written.toml"
    values = {
        "policy": "policy.yaml",
        "keys": "keys",
        "storage.kind": "azure",
        "storage.container": "nx-cache",
        "storage.accountName": "myaccount",
        "storage.containers.tiles": "nx-tiles",
    }
    written.write_text(default_toml(values))
    storage = load_settings(written, {}).storage
    assert (storage.kind, storage.containers.tiles) == ("azure", "nx-tiles")
    assert "\n[local_tier]\n" in written.read_text()


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("SECURE_CACHE_SERVER__PRT", "1", "did you mean server.port?"),
        ("SECURE_CACHE_SERVER__PORT", "many", "SECURE_CACHE_SERVER__PORT: server.port = 'many'"),
        ("SECURE_CACHE_SERVER__PORT", "70000", "<= 65535"),
        ("SECURE_CACHE_LIMITS__GRACE_SECONDS", "nan", "> 0"),
        ("SECURE_CACHE_NOWHERE__AT_ALL", "1", "unknown setting 'nowhere.at_all'"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(file, variable, value, expected):
    message = refusal(file, {variable: value})
    assert message.startswith(variable)
    assert expected in message


def test_a_file_that_cannot_be_read_says_how_to_make_one(tmp_path):
    assert "secure-cache init" in refusal(tmp_path / "absent.toml")
    assert "secure-cache init" in refusal(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'policy = "\xff"')
    assert "not UTF-8" in refusal(tmp_path / "latin.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * (1 << 21))
    assert "larger than" in refusal(tmp_path / "large.toml")


def test_hostile_text_in_a_value_stays_one_short_line(file):
    file.write_text(LEAST + '[server]\nroot_path = "\\u001b[31m\\n\\u202e' + "x" * 500 + '"')
    message = refusal(file)
    assert message.isprintable()
    assert len(message) < 400


def test_the_file_that_init_writes_loads_to_the_defaults(tmp_path, file):
    values = {"policy": "policy.yaml", "keys": "keys", "storage.path": "data"}
    written = tmp_path / "written.toml"
    written.write_text(default_toml(values))
    assert load_settings(written, {}) == load_settings(file, {})


def test_every_default_that_init_writes_as_a_comment_is_the_default(tmp_path, file):
    text = default_toml({"policy": "policy.yaml", "keys": "keys", "storage.path": "data"})
    lines = [
        line.removeprefix("# ") if " = " in line and line.startswith("# ") else line
        for line in text.splitlines()
        if "sets port in" not in line
    ]
    written = tmp_path / "written.toml"
    written.write_text("\n".join(lines))
    assert load_settings(written, {}) == load_settings(file, {})
    assert sum(" = " in line for line in lines) >= 30


def test_no_number_may_be_nan_because_nan_passes_every_comparison(file):
    for section in fields(Settings):
        for info in fields(section.type) if section.name in section_names() else []:
            if get_args(info.type)[:1] == (float,):
                name = f"SECURE_CACHE_{section.name}__{info.name}".upper()
                assert "Expected" in refusal(file, {name: "nan"})


def section_names():
    return {info.name for info in fields(Settings) if isinstance(info.type, type)}


def test_every_setting_is_documented():
    text = default_toml({})
    for section in Settings.__struct_fields__:
        assert f"{section} =" in text or f"[{section}]" in text


def test_init_cannot_write_a_setting_that_does_not_exist():
    with pytest.raises(KeyError, match=r"server\.prt"):
        default_toml({"server.prt": 1})


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_any_text_comes_back_from_the_file_that_init_writes(tmp_path_factory, text):
    written = tmp_path_factory.mktemp("settings") / "written.toml"
    written.write_text(default_toml({"policy": text, "keys": "k", "storage.path": "d"}))
    assert load_settings(written, {}).policy == written.parent / text
