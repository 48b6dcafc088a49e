"""From errors to exit codes and one line on stderr."""

import click
import pytest

from secure_cache.cli.boundary import EXIT_CODES, Exit, exit_code, guarded
from secure_cache.model import errors
from secure_cache.policy.finding import make_finding

EXPECTED = {
    errors.SecureCacheError: 5,
    errors.Refused: 4,
    errors.InvalidToken: 4,
    errors.ExpiredToken: 4,
    errors.ReplayedToken: 4,
    errors.Denied: 4,
    errors.Revoked: 4,
    errors.Malformed: 2,
    errors.TooLarge: 2,
    errors.TooSlow: 3,
    errors.DigestMismatch: 5,
    errors.NotFound: 1,
    errors.AlreadyExists: 1,
    errors.VersionMismatch: 3,
    errors.Unavailable: 3,
    errors.Overloaded: 3,
    errors.StorageUnavailable: 3,
    errors.Broken: 5,
    errors.CorruptObject: 5,
    errors.LogInconsistent: 5,
    errors.HistoryChanged: 5,
    errors.StorageForbidden: 4,
    errors.Misconfigured: 2,
    errors.InvalidPolicy: 2,
    errors.NoQuorum: 3,
    errors.WrongFilter: 2,
    errors.DamagedIndex: 5,
    errors.NoAuditIndex: 2,
}


def failing(error):
    def command():
        raise error

    return command


def all_errors(kind=errors.SecureCacheError):
    yield kind
    for below in kind.__subclasses__():
        yield from all_errors(below)


def test_every_error_of_the_tree_has_an_expected_exit_code():
    ours = {kind for kind in all_errors() if kind.__module__ == errors.__name__}
    assert ours == set(EXPECTED)


@pytest.mark.parametrize(("kind", "code"), EXPECTED.items())
def test_an_error_becomes_its_exit_code_and_one_line(kind, code, capsys):
    assert exit_code(kind("what; where; what to do")) == code
    assert guarded(failing(kind("what; where; what to do")), {}) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "secure-cache: what; where; what to do\n"


def test_an_error_without_a_text_says_its_title(capsys):
    guarded(failing(errors.Denied()), {})
    assert capsys.readouterr().err == f"secure-cache: {errors.Denied.title}\n"


def test_a_defect_of_ours_is_never_taken_for_the_answer_no(capsys):
    assert guarded(failing(ZeroDivisionError("division by zero")), {}) == Exit.INTEGRITY
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert "SECURE_CACHE_DEBUG=1" in err
    assert err.count("\n") == 1
    assert Exit.NO not in {EXIT_CODES[errors.SecureCacheError], EXIT_CODES[errors.Broken]}


def test_the_traceback_comes_when_it_is_asked_for(capsys):
    assert guarded(failing(errors.NotFound("gone")), {"SECURE_CACHE_DEBUG": "1"}) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("secure-cache: gone\n")


def test_what_a_task_group_wraps_is_told_as_itself(capsys):
    inner = BaseExceptionGroup("inner", [errors.StorageUnavailable("the disk is away")])
    assert guarded(failing(BaseExceptionGroup("outer", [inner])), {}) == 3
    assert capsys.readouterr().err == "secure-cache: the disk is away\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupt_says_nothing(error, capsys):
    assert guarded(failing(error), {}) == 130
    assert capsys.readouterr() == ("", "")


def test_a_file_that_cannot_be_used_is_named(capsys):
    assert guarded(failing(PermissionError(13, "Permission denied", "/etc/shadow")), {}) == 2
    assert capsys.readouterr().err == "secure-cache: /etc/shadow: Permission denied\n"


def test_a_world_that_fails_without_a_file_is_unreachable(capsys):
    assert guarded(failing(OSError(28, "No space left on device")), {}) == 3
    assert capsys.readouterr().err == "secure-cache: No space left on device\n"


def test_each_error_of_a_policy_has_a_line_and_warnings_do_not_hide_them(capsys):
    findings = (
        make_finding("E01", "unknown key 'rol'", fix="did you mean role?", at=(3, 5), path="p"),
        make_finding("W06", "a quota", fix="keep it", at=(4, 5), path="p"),
        make_finding("E02", "a key twice", fix="delete one", at=(9, 1), path="p"),
    )
    assert guarded(failing(errors.InvalidPolicy("2 errors", findings)), {}) == 2
    assert capsys.readouterr().err.splitlines() == [
        "secure-cache: p:3:5: E01 unknown key 'rol'; fix: did you mean role?",
        "secure-cache: p:9:1: E02 a key twice; fix: delete one",
    ]


def test_a_flood_of_findings_is_cut(capsys):
    found = tuple(
        make_finding("E01", "unknown key", fix="x", at=(line, 1), path="p") for line in range(1, 90)
    )
    guarded(failing(errors.InvalidPolicy("many", found)), {})
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 51
    assert lines[-1] == "secure-cache: 39 more errors are not shown"


def test_a_strangers_text_cannot_steer_the_terminal_or_forge_a_line(capsys):
    text = "bad \x1b[2J name\nsecure-cache: all is well\u202e"
    guarded(failing(errors.Malformed(text)), {})
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.isascii()
    assert "\x1b" not in err


def test_a_command_without_a_code_has_succeeded():
    assert guarded(lambda: None, {}) == 0
    assert guarded(lambda: Exit.INTEGRITY, {}) == 5
