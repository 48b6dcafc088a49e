"""`audit monitor` before it looks anywhere: its rules, its state and its secrets."""

import os

import pytest

RULES = "version: 1\nexpect: [{ name: all, issuer: '*' }]\n"
SECRET_URL = "https://hook.example.com/secret-path"


@pytest.fixture
def monitor(call, tmp_path, monkeypatch):
    monkeypatch.setenv("SECURE_CACHE_TOKEN", "e30.e30.e30")
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)

    def run(*arguments, rules=rules):
        done = call(
            *("audit", "monitor", rules, "--state", tmp_path / "state.json"),
            *("--server", "http://127.0.0.1:9", *arguments),
        )
        assert "secret-path" not in done.out + done.err
        return done

    return run


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        (SECRET_URL, 0o644, "chmod 600"),
        ("", 0o600, "one line"),
        (f"{SECRET_URL}\n{SECRET_URL}", 0o600, "one line"),
        ("http://hook.example.com/secret-path", 0o600, "not https"),
        ("\udcff", 0o600, "not text"),
    ],
)
def test_a_file_that_holds_no_secret_url_is_refused(monitor, tmp_path, text, mode, says):
    url = tmp_path / "webhook"
    url.write_bytes(text.encode(errors="surrogateescape"))
    url.chmod(mode)
    done = monitor("--webhook-file", url)
    assert done.code == 2
    assert says in done.err


def test_a_secret_stands_in_one_place(monitor, tmp_path, monkeypatch):
    url = tmp_path / "webhook"
    url.write_text(f"{SECRET_URL}\n")
    url.chmod(0o600)
    assert monitor("--webhook-file", tmp_path / "none").code == 2
    assert monitor("--webhook-secret-file", url).code == 2
    assert monitor("--webhook", "https://hook.example.com").code == 2
    # Nobody answers there; everything else is in order.
    assert monitor("--webhook-file", url, "--webhook-secret-file", url).code == 3
    monkeypatch.setenv("SECURE_CACHE_MONITOR_WEBHOOK", SECRET_URL)
    assert monitor().code == 3
    done = monitor("--webhook-file", url)
    assert done.code == 2
    assert "one of them" in done.err


def test_what_is_wrong_with_the_rules_is_said_with_its_line(monitor, tmp_path):
    rules = tmp_path / "other.yaml"
    assert monitor(rules=rules).code == 2
    for text, says in (
        (RULES + "max_ago: 1d\n", "other.yaml:3:1: E01 unknown key 'max_ago'"),
        (RULES + "ignore: [stale]\n", "must not be ignored"),
        ("version: 1\nexpect: [{ name: a, issuer: b, hours: { mon: [x] } }]\n", "'x' is no window"),
    ):
        rules.write_text(text)
        done = monitor(rules=rules)
        assert done.code == 2
        assert says in done.err
        assert done.out == ""


def test_rules_may_be_a_link_and_must_be_a_file_of_their_size(monitor, tmp_path):
    """As in a pod, where each file of a mounted ConfigMap is a link."""
    link = tmp_path / "link.yaml"
    link.symlink_to(tmp_path / "rules.yaml")
    assert monitor(rules=link).code == 3
    large = tmp_path / "large.yaml"
    large.write_text(RULES + "#" * (1 << 20))
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    for rules in (large, pipe):
        done = monitor(rules=rules)
        assert done.code == 2
        assert "no plain file of at most" in done.err


@pytest.mark.parametrize("begin", ["soon", "-1", "1.5", "9" * 19])
def test_a_first_look_begins_somewhere(monitor, begin):
    done = monitor("--from", begin)
    assert done.code == 2
    assert "--from" in done.err
