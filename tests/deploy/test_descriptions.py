"""What deploy/ describes: judged by the tools that can be installed, and held to the code."""

import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import msgspec
import pytest
import yaml
from tools import missing
from world.deploy_tools import BIN, deploy_tool

from secure_cache.compose.azure import NEEDS
from secure_cache.http import app as application
from secure_cache.settings import Settings, load_settings
from secure_cache.storage import layout

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
BASE = DEPLOY / "k8s" / "base"
MANIFESTS = sorted(path for path in BASE.glob("*.yaml") if path.name != "kustomization.yaml")
YAML = sorted({*DEPLOY.rglob("*.yaml"), DEPLOY / ".checkov.yaml"})
BICEP = sorted(DEPLOY.rglob("*.bicep"))
TERRAFORM = sorted((DEPLOY / "terraform").glob("*.tf"))
MAY = {"read", "add/action", "write", "delete"}


def run(*command: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )


def parse_with(program: str, *files: Path) -> "subprocess.CompletedProcess[str]":
    """In the environment of the tools, which is not ours."""
    python = BIN / "python"
    if not python.is_file():
        missing("checkov", "make deploy-tools")
    return run(python, "-c", program, *files)


def manifest(name: str) -> dict:
    return yaml.safe_load((BASE / f"{name}.yaml").read_text())


# the tools


@pytest.mark.slow
def test_checkov_finds_nothing_that_is_not_explained():
    done = run(
        deploy_tool("checkov"),
        "--config-file",
        "deploy/.checkov.yaml",
        "-d",
        "deploy",
        "-o",
        "json",
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    reports = json.loads(done.stdout)
    passed = {report["check_type"]: report["summary"]["passed"] for report in reports}
    assert set(passed) == {"bicep", "terraform", "kubernetes", "dockerfile"}
    assert all(passed.values()), passed


def test_every_skip_of_checkov_has_its_reason():
    lines = (DEPLOY / ".checkov.yaml").read_text().split("skip-check:\n")[1].splitlines()
    assert all(re.fullmatch(r"  - CKV2?_[A-Z0-9_]+ +# \S.*", line) for line in lines)


def test_kubernetes_knows_every_field():
    done = run(deploy_tool("kubernetes-validate"), "--strict", *MANIFESTS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count(" passed ") == len(MANIFESTS)


def test_kubernetes_validate_would_notice_a_field_that_is_none(tmp_path):
    wrong = tmp_path / "wrong.yaml"
    text = (BASE / "deployment.yaml").read_text()
    wrong.write_text(text.replace("readOnlyRootFilesystem", "readOnlyRootFilesytem"))
    assert run(deploy_tool("kubernetes-validate"), "--strict", wrong).returncode != 0


def test_yaml_is_tidy():
    rules = (
        "{extends: default, rules: {line-length: {max: 240}, document-start: disable,"
        " comments: {min-spaces-from-content: 1}, braces: disable,"
        " octal-values: disable, truthy: {check-keys: false}}}"
    )
    done = run(deploy_tool("yamllint"), "--strict", "-d", rules, *YAML)
    assert done.returncode == 0, done.stdout


def test_bicep_parses():
    program = (
        "import sys\nfrom pycep import BicepParser\n"
        "for name in sys.argv[1:]:\n    BicepParser().parse(text=open(name).read())\n"
    )
    done = parse_with(program, *BICEP)
    assert done.returncode == 0, done.stderr[-1000:]
    assert len(BICEP) == 5


def test_terraform_parses():
    program = "import sys, hcl2\nfor name in sys.argv[1:]:\n    hcl2.load(open(name))\n"
    done = parse_with(program, *TERRAFORM)
    assert done.returncode == 0, done.stderr[-1000:]
    assert len(TERRAFORM) == 5


def systemd_analyze():
    analyze = Path("/usr/bin/systemd-analyze")
    if not analyze.is_file():
        missing("systemd-analyze", "apt-get install systemd")
    return analyze


@cache
def system_calls(name):
    """Of a set, with the sets in it."""
    if not name.startswith("@"):
        return frozenset({name})
    done = run(systemd_analyze(), "syscall-filter", name)
    assert done.returncode == 0, done.stderr
    members = [line.strip() for line in done.stdout.splitlines()[1:]]
    return frozenset().union(
        *(system_calls(member) for member in members if member and not member.startswith("#"))
    )


def test_the_unit_lets_the_server_do_what_it_does():
    """Whoever makes another call is killed. The index is built at the lowest priority."""
    unit = (DEPLOY / "systemd" / "secure-cache.service").read_text()
    allowed = set()
    for line in re.findall(r"^SystemCallFilter=(.+)$", unit, re.MULTILINE):
        calls = frozenset().union(*map(system_calls, line.removeprefix("~").split()))
        allowed = allowed - calls if line.startswith("~") else allowed | calls
    needed = {"execve", "flock", "fsync", "openat", "setpriority", "socket", "wait4"}
    assert needed <= allowed
    assert not allowed & {"setrlimit", "sched_setaffinity", "chown", "ptrace", "mount", "reboot"}


def test_systemd_understands_the_unit():
    done = run(systemd_analyze(), "verify", "--man=no", DEPLOY / "systemd" / "secure-cache.service")
    ours = [line for line in done.stderr.splitlines() if "secure-cache.service" in line]
    # The program is not installed where the test runs.
    assert [line for line in ours if "not executable" not in line] == []


# the rights, twice described


@cache
def bicep_rights() -> dict[tuple[str, str], set[str]]:
    """(who, container) to what it may do there."""
    text = (DEPLOY / "bicep" / "modules" / "roles.bicep").read_text()
    roles = {
        name: set(re.findall(r"containers/blobs/([a-z/]+)'", body))
        for name, body in re.findall(
            r"resource (\w+) 'Microsoft\.Authorization/roleDefinitions@.*?dataActions: \[(.*?)\]",
            text,
            re.DOTALL,
        )
    }
    return {
        (who, container): roles[role]
        for container, who, role in re.findall(
            r"scope: (\w+)\n.*?principalId: (\w+)PrincipalId\n.*?roleDefinitionId: (\w+)\.id",
            text,
            re.DOTALL,
        )
    }


@cache
def terraform_rights() -> dict[tuple[str, str], set[str]]:
    text = (DEPLOY / "terraform" / "roles.tf").read_text()
    roles = {
        name: set(json.loads(f"[{rights}]"))
        for name, rights in re.findall(
            r"    (\w+) = \{\n.*?rights      = \[(.*?)\]", text, re.DOTALL
        )
    }
    return {
        (who, container): roles[role]
        for container, role, who in re.findall(
            r'container = "(\w+)", role = "(\w+)", who = "(\w+)"', text
        )
    }


@pytest.mark.parametrize("rights", [bicep_rights, terraform_rights])
def test_the_server_gets_what_it_needs_and_nothing_else(rights):
    for name, need in NEEDS.items():
        expected = {"read"}
        expected |= {"write"} if need.write or need.replace else {"add/action"}
        expected |= {"delete"} if need.delete else set()
        assert rights()["server", name] == expected, name


@pytest.mark.parametrize("rights", [bicep_rights, terraform_rights])
def test_only_the_retention_job_deletes_and_it_writes_nothing(rights):
    deletes = {place for place, actions in rights().items() if "delete" in actions}
    assert deletes == {
        ("server", "pending"),
        ("gc", "artifacts"),
        ("gc", "records"),
        ("gc", "state"),
    }
    assert all(
        actions == {"read", "delete"} for (who, _), actions in rights().items() if who == "gc"
    )
    assert all(actions <= MAY for actions in rights().values())


def test_both_describe_the_same_rights():
    assert bicep_rights() == terraform_rights()
    assert len(bicep_rights()) == 9


# the account


def test_tiles_alone_cannot_be_changed():
    bicep = (DEPLOY / "bicep" / "modules" / "storage.bicep").read_text()
    assert re.findall(r"immutabilityPolicies@\S+' = \{\n  parent: (\w+)", bicep) == ["tiles"]
    terraform = (DEPLOY / "terraform" / "storage.tf").read_text()
    assert re.findall(r'manager_id = azurerm_storage_container\.store\["(\w+)"\]', terraform) == [
        "tiles"
    ]
    assert "allowProtectedAppendWrites: false" in bicep


def test_no_key_opens_the_account_and_no_stranger_reaches_it():
    bicep = (DEPLOY / "bicep" / "modules" / "storage.bicep").read_text()
    terraform = re.sub(r" += +", " = ", (DEPLOY / "terraform" / "storage.tf").read_text())
    for line in (
        "allowSharedKeyAccess: false",
        "allowBlobPublicAccess: false",
        "minimumTlsVersion: 'TLS1_2'",
        "publicNetworkAccess: 'Disabled'",
        "defaultAction: 'Deny'",
        "isHnsEnabled: false",
    ):
        assert line in bicep
    for line in (
        "shared_access_key_enabled = false",
        "allow_nested_items_to_be_public = false",
        'min_tls_version = "TLS1_2"',
        "public_network_access_enabled = false",
        'default_action = "Deny"',
        "is_hns_enabled = false",
    ):
        assert line in terraform


def test_what_expires_by_age_is_named_as_the_code_names_it():
    """Records before their artifacts, used tokens, counts of refusals, and nothing else."""
    bicep = (DEPLOY / "bicep" / "modules" / "storage.bicep").read_text()
    rules = dict(
        re.findall(
            r"prefixMatch: \['(.*?)'\].*?daysAfterModificationGreaterThan: (.*?)\n",
            bicep,
            re.DOTALL,
        )
    )
    assert rules == {
        "records/": "recordDays",
        "artifacts/": "recordDays + 7",
        "state/jti/": "90",
        "state/denials/": "400",
    }
    terraform = (DEPLOY / "terraform" / "storage.tf").read_text()
    assert dict(re.findall(r'    "([a-z/]+)" += (.*)\n', terraform)) == {
        "records/": "var.record_days",
        "artifacts/": "var.record_days + 7",
        "state/jti/": "90",
        "state/denials/": "400",
    }
    assert layout.used_token("t", 0).startswith("jti/")
    assert layout.denials(0, "p").startswith("denials/")


# the program's own words


def variables() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in sorted(DEPLOY.rglob("*")):
        if path.is_file() and path.suffix != ".md":
            names = set(re.findall(r"SECURE_CACHE_[A-Z_]+[A-Z]", path.read_text()))
            if names:
                found[str(path.relative_to(ROOT))] = names
    return found


def test_every_variable_that_is_set_is_a_setting():
    known = {"SECURE_CACHE_CONFIG"}

    def collect(kind: type, prefix: str) -> None:
        for field in msgspec.structs.fields(kind):
            inner = field.type
            name = f"{prefix}{field.encode_name.upper()}"
            if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
                collect(inner, f"{name}__")
            else:
                known.add(name)

    collect(Settings, "SECURE_CACHE_")
    stems = {"SECURE_CACHE_STORAGE__CONTAINERS__"}
    for path, names in variables().items():
        unknown = {n for n in names if n not in known and not any(s.startswith(n) for s in stems)}
        assert unknown == set(), path
    assert len(variables()) >= 5


def test_the_settings_of_the_image_load(tmp_path):
    settings = load_settings(
        DEPLOY / "container" / "secure-cache.toml",
        {
            "SECURE_CACHE_STORAGE__CONTAINER": "cache",
            "SECURE_CACHE_STORAGE__ACCOUNTNAME": "account",
        },
    )
    assert settings.storage.kind == "azure"
    assert settings.server.host == "0.0.0.0"  # noqa: S104 - inside a container


def test_who_stops_a_server_waits_longer_than_it_drains():
    with (DEPLOY / "container" / "secure-cache.toml").open("rb") as file:
        server = tomllib.load(file)["server"]
    drains = server["drain_seconds"] + server["drain_notice_seconds"]
    pod = manifest("deployment")["spec"]["template"]["spec"]
    bicep = (DEPLOY / "bicep" / "modules" / "app.bicep").read_text()
    terraform = (DEPLOY / "terraform" / "app.tf").read_text()
    unit = (DEPLOY / "systemd" / "secure-cache.service").read_text()
    waits = [
        pod["terminationGracePeriodSeconds"],
        *map(int, re.findall(r"terminationGracePeriodSeconds: (\d+)", bicep)),
        *map(int, re.findall(r"termination_grace_period_seconds = (\d+)", terraform)),
        *map(int, re.findall(r"TimeoutStopSec=(\d+)", unit)),
        *map(int, re.findall(r"stop_grace_period: (\d+)s", (DEPLOY / "compose.yaml").read_text())),
    ]
    assert len(waits) == 5
    assert all(wait > drains + 10 for wait in waits)


def test_every_probe_asks_what_the_server_answers():
    source = Path(application.__file__).with_name("health.py").read_text()
    served = set(re.findall(r'"(/[a-z]+z)"', source))
    asked = set()
    for path in (BASE / "deployment.yaml", *BICEP, *TERRAFORM, *DEPLOY.glob("container/*.py")):
        asked |= set(re.findall(r"[\"' ](/[a-z]+z)\b", path.read_text()))
    assert asked == {"/healthz", "/readyz"}
    assert asked <= served


def test_a_pod_may_do_nothing_but_serve():
    pod = manifest("deployment")["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["metadata"]["labels"]["azure.workload.identity/use"] == "true"
    # A subPath never sees an edit of the policy.
    assert all("subPath" not in mount for mount in container["volumeMounts"])
    assert manifest("deployment")["spec"]["replicas"] >= 2


def test_the_image_is_nobodys_and_its_base_is_pinned():
    text = (DEPLOY / "Dockerfile").read_text()
    assert re.search(r"^ARG BASE=\S+:3\.11\.\d+\S*@sha256:[0-9a-f]{64}$", text, re.MULTILINE)
    assert re.findall(r"^FROM (.*)$", text, re.MULTILINE) == ["${BASE} AS build", "${BASE}"]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", text, re.MULTILINE)
    assert "--require-hashes" in text
    for word in ("ENTRYPOINT", "CMD"):
        assert re.search(rf"^{word} \[", text, re.MULTILINE)


def test_key_folders_travel_as_one_text(tmp_path):
    """What a Container App places at its start is what `place_files.py --pack` read."""
    keys = tmp_path / "keys"
    made = run(Path(sys.executable).with_name("secure-cache"), "init", tmp_path / "server")
    assert made.returncode == 0, made.stderr
    program = DEPLOY / "container" / "place_files.py"
    packed = run(sys.executable, program, "--pack", tmp_path / "server" / "keys")
    assert packed.returncode == 0, packed.stderr
    (tmp_path / "secret").write_text(packed.stdout)
    done = run(sys.executable, program, "--keys", tmp_path / "secret", keys)
    assert done.returncode == 0, done.stderr
    before = {p.name: p.read_bytes() for p in (tmp_path / "server" / "keys").iterdir()}
    assert {p.name: p.read_bytes() for p in keys.iterdir()} == before
    assert {p.stat().st_mode & 0o777 for p in keys.iterdir()} == {0o600}
