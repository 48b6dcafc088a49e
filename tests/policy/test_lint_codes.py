"""Each lint code: a change to the worked example that makes it fire, and only then."""

import pytest
from fakes.policies import NOW, cases_of, codes, lint, load, mutated, text

from secure_cache.model.errors import InvalidPolicy
from secure_cache.policy.finding import CODES, Severity, make_finding
from secure_cache.policy.parse import lint_policy, parse_policy

PIN = '    pin: { repository_owner_id: "65" }      # mandatory: issuer is shared by all of GitHub\n'
MAIN_READ = "      read: [self]                          # main never reads anything else\n"
ACK = "      ack: [branch-creation-is-restricted]  # lint E08 without it\n"
NONE = "revocations: []"
SELF = "    preset: self                            # tokens minted by this server\n"
GITLAB = '  gl:\n    preset: gitlab\n    pin: { namespace_id: "7" }\n'


def issuer(keys):
    """An issuer of its own, beside the others."""
    body = "".join(f"    {line}\n" for line in keys.split("; "))
    return ("  laptops:\n", f"  other:\n{body}  laptops:\n")


def revocation(match, rest=""):
    return (NONE, f"revocations:\n  - {{ id: r1, match: {match}, reason: test{rest} }}\n")


FIRES = [
    ("E01", [("    ruleset: standard\n", "    rulset: standard\n")]),
    ("E01", [("tier: trusted", "tier: trusted\n      promote: true")]),
    ("E02", [("version: 1\n", "version: 1\nversion: 1\n")]),
    ("E02", [(MAIN_READ, MAIN_READ + "      read: [branch/main]\n")]),
    ("E03", [(PIN, "")]),
    ("E03", [(PIN, '    pin: { actor_id: "1" }\n')]),
    ("E03", [('    match: { repository_id: "74" }\n', "")]),
    ("E04", [('"release/*"', '"release*"')]),
    ("E04", [('"release/*"', '"^release/.+$"')]),
    ("E04", [("{ branch: main }", '{ branch: "main|release" }')]),
    ("E04", [("{ pull_request: any }", '{ pull_request: "1*" }')]),
    ("E05", [("read: [branch/main, base, self]", 'read: ["branch/*", base, self]')]),
    ("E05", [("read: [branch/main, base, self]", 'read: ["**"]')]),
    ("E05", [("with: web, namespaces: [branch/main]", 'with: web, namespaces: ["branch/**"]')]),
    ("E06", [(MAIN_READ, "      read: [self, branch/develop]\n")]),
    ("E06", [(MAIN_READ, "      read: [self, pr/7]\n")]),
    ("E06", [("read: [branch/main, self]\n    - name: pull", "read: [pr/7]\n    - name: pull")]),
    ("E07", [("tier: candidate", "tier: trusted")]),
    ("E07", [("when: { branch: main }", "when: { tag: v1 }")]),
    ("E08", [(ACK, "")]),
    ("E09", [('repository_owner_id: "65"', "repository_owner_id: 65")]),
    ("E09", [('repository_id: "74"', "repository_id: 0123")]),
    ("E09", [("{ branch: main }", "{ branch: on }")]),
    ("E09", [("{ branch: main }", "{ branch: 1.0 }")]),
    ("E09", [("revocations: []", "epochs: { 1:30: 1 }")]),
    ("E10", [("audience: https://cache.acme.example ", "# ")]),
    ("E10", [("audience: https://cache.acme.example ", "audience: http://cache.acme.example ")]),
    ("E10", [("audience: https://cache.acme.example ", "audience: [https://a.example] ")]),
    ("E10", [("audience: https://cache.acme.example ", "audience: https://u@cache.example ")]),
    ("E10", [("audience: https://cache.acme.example ", "audience: https://cache.example/?a ")]),
    ("E10", [("audience: https://cache.acme.example ", "audience: cache ")]),
    ("E11", [('when: { branch: "release/*" }', "when: { branch: main }")]),
    ("E11", [("when: { role: developer }", 'when: { branch: "fix/**" }')]),
    ("E12", [issuer("preset: generic; iss: http://ci.example")]),
    ("E12", [issuer("preset: generic; iss: https://10.1.2.3")]),
    ("E12", [issuer("preset: generic; iss: https://ci")]),
    ("E12", [issuer("preset: generic; iss: https://ci.example; jwks_url: https://[::1]/k")]),
    (
        "E12",
        [issuer("preset: generic; iss: https://ci.example; jwks_url: https://u:p@a.example/k")],
    ),
    ("E12", [issuer("preset: generic; iss: http://ci.example; allow_private: true")]),
    ("E12", [issuer("preset: generic; iss: https://169.254.169.254")]),
    ("E12", [issuer("preset: generic; iss: https://ci.internal")]),
    ("E13", [(PIN, PIN + "    max_lifetime: 30d\n")]),
    ("E13", [(PIN, PIN + "    max_age: 1s\n")]),
    ("E13", [revocation("{ project: mono }", ", since: 2026-02-30T00:00:00Z")]),
    (
        "E13",
        [
            revocation(
                "{ project: mono }", ", since: 2026-02-02T00:00:00Z, until: 2026-02-01T00:00:00Z"
            )
        ],
    ),
    ("E14", [("      tier: trusted\n", "")]),
    ("E14", [issuer("preset: generic")]),
    ("E14", [issuer("preset: generic; iss: some-ci")]),
    ("E15", [("version: 1", "version: 2")]),
    ("E15", [("when: { branch: main }", "when: { branch: main, tag: v1 }")]),
    ("E15", [("when: { branch: main }", "when: {}")]),
    ("E15", [("      when: { branch: main } ", "      claims:\n      when: { branch: main } ")]),
    (
        "E15",
        [("      write: self                           # namespace", "      write: branch/main #")],
    ),
    ("E15", [(MAIN_READ, "      read: [mono:branch/main]\n")]),
    ("E15", [(MAIN_READ, "      read: [main]\n")]),
    ("E15", [(MAIN_READ, "      read: [self, base]\n")]),
    ("E15", [("when: { role: developer } ", "write: self\n      when: { role: developer } ")]),
    ("E15", [("      read: [branch/main]\n", "      read: [self]\n")]),
    ("E15", [("when: { pull_request: any } ", "audit: true\n      when: { pull_request: any } ")]),
    ("E15", [(SELF, SELF + "    iss: https://other.example\n")]),
    ("E15", [issuer("preset: generic; iss: ci; jwks_file: ../keys.json")]),
    ("E15", [issuer("preset: generic; iss: ci; jwks_file: /keys.json")]),
    ("E15", [issuer("preset: generic; iss: ci; jwks_file: k; jwks_url: https://a.example/k")]),
    ("E15", [issuer("preset: generic; iss: ci; jwks_file: k; claims: { sha: x }")]),
    ("E15", [issuer("preset: open; trusted_events: [push]")]),
    ("E15", [(PIN, PIN + "    claims: { branch: ref }\n")]),
    ("E15", [(PIN, PIN + "    algorithms: [HS256]\n")]),
    ("E15", [(PIN, PIN + "    algorithms: [none]\n")]),
    ("E15", [revocation("{}")]),
    ("E15", [revocation("{ jti_sha256: abc }")]),
    ("E15", [revocation("{ key: a/b }")]),
    ("E15", [revocation("{ namespace: branch/main }")]),
    ("E15", [(NONE, "deny:\n  - { name: d }\n")]),
    ("E15", [(NONE, 'epochs: { "branch/main": 1 }')]),
    ("E15", [(NONE, 'epochs: { "mono:branch/main": -1 }')]),
    ("E15", [(NONE, "shadow_policy: ../other.yaml")]),
    ("E15", [(ACK, "      ack: [branch-creation-is-restrictd]\n")]),
    ("E15", [("name: main\n", 'name: "ma\\u001bin"\n')]),
    ("E16", [("preset: github ", "preset: !x github ")]),
    ("E16", [("revocations: []", "revocations: &r []")]),
    ("E17", [("    preset: github  ", "    preset: githib  ")]),
    ("E17", [("    ruleset: standard\n", "    ruleset: other\n")]),
    ("E17", [("    issuers: [gha, laptops]", "    issuers: [gha, laptop]")]),
    ("E17", [("    share: [{ with: web, namespaces: [branch/main] }]\n", "")]),
    ("E17", [("with: web, namespaces: [branch/main]", "with: wob, namespaces: [branch/main]")]),
    (
        "E17",
        [
            (
                "{ project: mono, namespaces: [branch/main] }",
                "{ project: nomo, namespaces: [branch/main] }",
            )
        ],
    ),
    ("E17", [revocation("{ project: nomo }")]),
    ("E17", [revocation("{ issuer: ghb }")]),
    ("E17", [revocation('{ namespace: "nomo:branch/main" }')]),
    ("E17", [(NONE, 'epochs: { "nomo:branch/main": 1 }')]),
    ("E17", [(NONE, "deny:\n  - { name: d, projects: [nomo] }\n")]),
    ("E17", [(NONE, "deny:\n  - { name: d, issuers: [ghb] }\n")]),
    ("E17", [(NONE, "anonymous: { project: nomo, read: [branch/main], ack: [public-read] }")]),
    ("E18", [("name: release\n", "name: main\n")]),
    ("E18", [issuer('preset: github; pin: { repository_owner_id: "1" }')]),
    ("E18", [issuer("preset: generic; iss: https://cache.acme.example; jwks_file: k")]),
    ("E18", [(NONE, "deny:\n  - { name: d, issuers: [gha] }\n  - { name: d, issuers: [gha] }\n")]),
    (
        "E18",
        [
            (
                NONE,
                (
                    "revocations:\n  - { id: a, match: { project: mono }, reason: x }\n"
                    "  - { id: a, match: { project: web }, reason: x }\n"
                ),
            )
        ],
    ),
    ("E19", [(NONE, "anonymous: { project: mono, read: [branch/main] }")]),
    ("E19", [(NONE, "anonymous: { project: mono, read: [self], ack: [public-read] }")]),
    (
        "E19",
        [
            (NONE, "anonymous: { project: mono, read: [branch/main], ack: [public-read] }"),
            (
                '    match: { repository_id: "74" }\n',
                '    match: { repository_id: "74" }\n    visibility: private\n',
            ),
        ],
    ),
    (
        "E20",
        [
            (
                (
                    '      when: { branch: "**" }                # any other branch push\n'
                    "      tier: contributor"
                ),
                '      when: { branch: "**" }\n      tier: candidate',
            )
        ],
    ),
    ("E20", [('when: { branch: "release/*" } ', 'when: { branch: "release/**" } ')]),
    (
        "E20",
        [
            (
                (
                    "when: { pull_request: any }           # same-repo PRs (forks get no token)\n"
                    "      tier: contributor"
                ),
                "when: { pull_request: any }\n      tier: candidate",
            )
        ],
    ),
    ("E21", [("version: 1\n", "version: 1\nrequire_tests: true\n")]),
    ("E22", [(PIN, PIN + "    trusted_events: [push, pull_request_target]\n")]),
    ("W01", [('match: { repository_id: "74" }', "match: { repository: acme/mono }")]),
    (
        "W01",
        [("when: { branch: main } ", "claims: { actor: alice }\n      when: { branch: main } ")],
    ),
    ("W02", []),
    ("W03", [(PIN, PIN + "    trusted_events: [push, workflow_dispatch]\n")]),
    (
        "W04",
        [
            (
                '    match: { repository_id: "74" }\n',
                '    match: { repository_id: "74" }\n    visibility: private\n',
            )
        ],
    ),
    (
        "W04",
        [
            (
                'match: { repository_id: "74" }',
                'match: { repository_id: "74", repository_visibility: internal }',
            )
        ],
    ),
    ("W05", [revocation("{ project: mono }", ", until: 2020-01-01T00:00:00Z")]),
    ("W06", []),
    ("W07", [('match: { repository_id: "74" }', 'match: { repository_id: ["74", "101"] }')]),
    ("W07", [('match: { repository_id: "74" }', "match: { environment: x }")]),
    ("W08", [("read: [branch/main, base, self]", "read: [self, branch/main, base]")]),
    (
        "W09",
        [('match: { repository_id: "74" }', 'match: { repositry_id: "74", repository_id: "74" }')],
    ),
    ("W09", [(NONE, 'deny: [{ name: d, claims: { actr_id: "1" } }]')]),
    ("W09", [revocation('{ issuer: laptops, run_id: "1" }')]),
    ("E15", [issuer("preset: generic; iss: ci; jwks_file: k; trusted_events: [push]")]),
    ("E15", [issuer("preset: generic; iss: ci; jwks_file: k; claims: { event: e }")]),
    ("W11", [revocation("{ project: mono, rule: main }")]),
    ("W12", [revocation("{ actor_id: octocat }")]),
    ("W12", [revocation('{ repository_id: "acme/mono" }')]),
    ("W12", [revocation('{ commit: "0123abc" }')]),
    (
        "W10",
        [
            issuer("preset: open"),
            ('    issuers: [gha]\n    match: { repository_id: "102" }\n', "    issuers: [other]\n"),
        ],
    ),
]


@pytest.mark.parametrize(("code", "changes"), FIRES)
def test_a_code_fires_on_its_mistake(code, changes):
    findings = lint(mutated(*changes))
    assert code in {finding.code for finding in findings}
    for finding in findings:
        assert str(finding).startswith(f"policy.yaml:{finding.line}:{finding.column}: ")
        assert "; fix: " in str(finding)
        assert str(finding).isprintable()
    if code.startswith("E"):
        with pytest.raises(InvalidPolicy) as caught:
            load(mutated(*changes))
        assert caught.value.findings == findings
    else:
        assert code in {finding.code for finding in load(mutated(*changes)).warnings}


def test_every_code_has_a_mistake_that_makes_it_fire():
    assert {code for code, _ in FIRES} == set(CODES)


def test_the_worked_example_is_clean_but_for_its_quotas():
    assert codes(text(), tests=cases_of()) == {"W06"}


ALLOWED = [
    [issuer("preset: generic; iss: https://10.1.2.3; allow_private: true")],
    [issuer("preset: generic; iss: http://127.0.0.1:8080; allow_private: true")],
    [issuer("preset: generic; iss: some-ci; jwks_file: keys/ci.json")],
    [issuer('preset: ghes; iss: https://git.example/_services/token; pin: { repository_id: "1" }')],
    [(PIN, PIN + "    max_lifetime: 5m\n    max_age: 1h\n    algorithms: [RS256]\n")],
    [
        (
            'match: { repository_id: "74" }',
            'match: [{ repository_id: "74" }, { repository_id: "75" }]',
        )
    ],
    [revocation('{ run_id: ["1", "2"] }', ", since: 2026-01-01T00:00:00Z")],
    [(NONE, 'epochs: { "mono:branch/main": 3 }')],
    [(NONE, "anonymous: { project: mono, read: [branch/main], ack: [public-read] }")],
    [(NONE, "log: { public: true }\nshadow_policy: next.yaml")],
    [(NONE, 'deny:\n  - { name: bots, when: { branch: "bot/**" }, claims: { actor_id: "9" } }\n')],
    [("when: { role: developer } ", "audit: true\n      when: { role: developer } ")],
]


@pytest.mark.parametrize("changes", ALLOWED)
def test_what_is_fine_is_not_complained_about(changes):
    assert codes(mutated(*changes), tests=cases_of()) <= {"W06", "W02"} or changes[0][1].count("75")
    load(mutated(*changes))


def test_required_tests_that_pass_let_the_policy_load():
    source = mutated(("version: 1\n", "version: 1\nrequire_tests: true\n"))
    assert load(source, tests=cases_of()).require_tests


def test_required_tests_that_fail_block_the_policy_and_say_which():
    source = mutated(
        ("version: 1\n", "version: 1\nrequire_tests: true\n"),
        ('when: { branch: "**" }', 'when: { branch: "other/**" }'),
    )
    failing = [finding for finding in lint(source, tests=cases_of()) if finding.code == "E21"]
    assert any("release-evil" in str(finding) for finding in failing)


def test_required_tests_that_are_missing_are_told_with_the_setting_that_names_them():
    source = mutated(("version: 1\n", "version: 1\nrequire_tests: true\n"))
    (finding,) = (finding for finding in lint(source) if finding.code == "E21")
    assert "policy_tests" in finding.fix


def test_a_broken_test_file_blocks_the_policy_that_requires_it():
    source = mutated(("version: 1\n", "version: 1\nrequire_tests: true\n"))
    with pytest.raises(InvalidPolicy):
        load(source, tests=b"version: 1\ncases: 3\n")


def test_an_untested_rule_is_named():
    tests = cases_of().replace(b"name: laptop,", b"name: gone, anonymous: true,", 1)
    tests = tests.replace(
        b"expect: { rule: developer, write: null, read: [branch/main] }", b"expect: deny"
    )
    found = [finding for finding in lint(text(), tests=tests) if finding.code == "W02"]
    assert [finding.message for finding in found] == ["rule developer has no positive case"]


def test_a_rule_without_a_negative_case_is_named():
    tests = (
        b"version: 1\ncases:\n  - { name: only, claims: { iss: self, prj: demo, branch: main },"
        b" expect: { rule: main, write: branch/main, read: [branch/main] } }\n"
    )
    found = lint(text("self-issued.yaml"), tests=tests)
    assert "rule main has no negative case" in {finding.message for finding in found}


def test_findings_come_in_the_order_of_the_file_and_all_at_once():
    source = mutated((PIN, ""), ('"release/*"', '"release*"'), (MAIN_READ, "      read: [main]\n"))
    found = lint(source)
    assert [finding.code for finding in found] == ["E03", "E15", "E04", "W06"]
    assert [finding.line for finding in found] == sorted(finding.line for finding in found)


def test_a_finding_points_at_the_value():
    (finding,) = [f for f in lint(mutated(('"release/*"', '"release*"'))) if f.code == "E04"]
    line = mutated(('"release/*"', '"release*"')).splitlines()[finding.line - 1]
    assert line[finding.column - 1 :].startswith('"release*"')
    assert finding.severity is Severity.ERROR


def test_an_unknown_key_gets_a_suggestion():
    (finding,) = lint(mutated(("    ruleset: standard\n", "    rulset: standard\n")))[:1]
    assert "did you mean ruleset?" in str(finding)


def test_a_code_that_is_not_documented_cannot_be_reported():
    with pytest.raises(ValueError, match="E99"):
        make_finding("E99", "x", fix="y", at=(1, 1), path="p")


def test_parse_and_lint_agree():
    data = text().encode()
    options = {"name": "p.yaml", "presets": {}, "now": NOW}
    findings = lint_policy(data, **options)
    with pytest.raises(InvalidPolicy) as caught:
        parse_policy(data, **options)
    assert caught.value.findings == findings
    assert {finding.code for finding in findings} >= {"E17"}


REACH = """\
    - name: early
      when: {{ branch: {early} }}
      claims: {{ environment: {claim} }}
      tier: {tier}
      write: self
      read: []
    - name: main
"""


@pytest.mark.parametrize(
    ("early", "claim", "tier", "dead"),
    [
        ("main", "a", "contributor", False),
        ("main", "[a, b]", "contributor", True),
        ("main", "[a, b, c]", "contributor", True),
        ("main", "[a, b]", "trusted", True),
        ('"**"', "[a, b]", "contributor", True),
        ('"*/*"', "[a, b]", "contributor", False),
        ("dev", "[a, b]", "contributor", False),
    ],
)
def test_a_rule_is_dead_when_one_above_asks_for_less(early, claim, tier, dead):
    """Rule main is trusted here, and asks for the environment a or b."""
    source = mutated(
        ("    - name: main\n", REACH.format(early=early, claim=claim, tier=tier)),
        (
            "when: { branch: main } ",
            "claims: { environment: [b, a] }\n      when: { branch: main } ",
        ),
    )
    assert ("E11" in codes(source)) is dead


def test_a_rule_below_a_trusted_one_is_alive_because_not_every_job_is_trustable():
    low = "    - name: low\n      when: { branch: main }\n      tier: contributor\n      read: []\n"
    assert "E11" not in codes(mutated(("    - name: release\n", low + "    - name: release\n")))


def test_a_revocation_lasts_as_long_as_entries_may_be_kept():
    """All rules that write say for how long, so two weeks after `until` nothing is left."""
    ttl = "      quota: { bytes: 1GiB, ttl: 14d }\n"
    source = text("minimal.yaml").replace("      write: self", ttl + "      write: self")
    line = (
        "revocations: [{ id: a, match: { project: app }, reason: x, until: 2026-12-20T00:00:00Z }]"
    )
    source = source.replace(NONE, line)
    until = 1_797_724_800
    assert "W05" not in codes(source, now=until + 14 * 86_400)
    assert "W05" in codes(source, now=until + 14 * 86_400 + 1)


def test_an_address_that_is_no_url_is_told():
    assert "E10" in codes(mutated(("https://cache.acme.example ", "https://[ ")))
    assert "E12" in codes(
        mutated(issuer("preset: generic; iss: https://ci.example; jwks_url: https://["))
    )
