"""The one loop that repeats requests, in a time of its own."""

import logging
import socket
from dataclasses import dataclass, field

import anyio
import pytest
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
)
from hypothesis import given
from hypothesis import strategies as st

from secure_cache.storage.azure_blob.errors import AzureFault, Kind, fault_of
from secure_cache.storage.azure_blob.options import Effort, Patience
from secure_cache.storage.azure_blob.pace import Pace
from secure_cache.storage.azure_blob.retry import Calls, StorageCall, Timing
from secure_cache.storage.azure_blob.transport import Sockets

pytestmark = pytest.mark.anyio

NOW = 1_900_000_000.0
EFFORT = Effort(30.0, 10.0, 4)


@dataclass
class Time:
    """A clock that only pauses move."""

    now: float = 0.0
    pauses: list[float] = field(default_factory=list)
    random: float = 1.0

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def timing(self) -> Timing:
        return Timing(
            clock=lambda: NOW + self.now,
            monotonic=lambda: self.now,
            sleep=self.sleep,
            jitter=lambda: self.random,
        )


@dataclass
class Answered:
    """Fails as told, then succeeds."""

    faults: list[Exception]
    asked: int = 0

    async def __call__(self) -> str:
        self.asked += 1
        if self.faults:
            raise self.faults.pop(0)
        return "answer"


class Response:
    """What the errors look at of an answer."""

    def __init__(self, status: int, **headers: str) -> None:
        self.status_code = status
        self.reason = "Told"
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def answer(status: int, **headers: str) -> HttpResponseError:
    return HttpResponseError(response=Response(status, **headers))


async def run(time: Time, request, effort: Effort = EFFORT, told: list | None = None):
    tell = (lambda _: None) if told is None else told.append
    return await Calls("records", Patience(), tell, time.timing()).run("get", effort, request)


async def test_pauses_double_up_to_a_cap():
    time = Time()
    request = Answered([ServiceRequestError("x") for _ in range(8)])
    assert await run(time, request, Effort(60.0, 10.0, 9)) == "answer"
    assert time.pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]


async def test_a_pause_is_anything_between_nothing_and_its_bound():
    time = Time(random=0.25)
    await run(time, Answered([ServiceRequestError("x")]))
    assert time.pauses == [0.025]


async def test_attempts_have_an_end():
    time, told = Time(), []
    request = Answered([ServiceRequestError("x") for _ in range(9)])
    with pytest.raises(AzureFault):
        await run(time, request, told=told)
    assert request.asked == 4
    assert told == [StorageCall("records", "get", "unavailable", sum(time.pauses), 4)]


async def test_a_pause_beyond_the_deadline_is_not_begun():
    time = Time()
    request = Answered([answer(503, Retry_After="4") for _ in range(9)])
    with pytest.raises(AzureFault):
        await run(time, request, Effort(10.0, 10.0, 9))
    assert time.pauses == [4.0, 4.0]
    assert request.asked == 3


@pytest.mark.parametrize(
    ("header", "pause"),
    [
        ("3", 3.0),
        ("0", 0.1),
        ("3600", 5.0),
        ("99999999999999999999", 5.0),
        ("Sun, 17 Mar 2030 17:46:44 GMT", 4.0),
        ("Sun, 17 Mar 2024 17:46:44 GMT", 0.1),
        ("Sun, 17 Mar 9999 17:46:44 GMT", 5.0),
        ("-3", 0.1),
        ("3.5", 0.1),
        ("\u0663", 0.1),
        ("soon", 0.1),
        ("", 0.1),
    ],
)
async def test_retry_after_is_obeyed_up_to_a_cap_and_else_ignored(header, pause):
    time = Time()
    await run(time, Answered([answer(503, Retry_After=header)]))
    assert time.pauses == [pytest.approx(pause)]


async def test_one_silent_attempt_does_not_use_up_the_operation():
    hanging = [True, False]

    async def request() -> str:
        if hanging.pop(0):
            await anyio.sleep_forever()
        return "answer"

    time = Time()
    assert await run(time, request, Effort(30.0, 0.01, 3)) == "answer"


async def test_cancellation_is_nobodys_fault():
    told: list[StorageCall] = []
    with anyio.move_on_after(0.01) as scope:
        await run(Time(), anyio.sleep_forever, told=told)
    assert scope.cancelled_caught
    assert told == []


async def test_each_finished_request_is_told_once():
    told: list[StorageCall] = []
    await run(Time(), Answered([]), told=told)
    await run(Time(), Answered([answer(500), answer(500)]), told=told)
    with pytest.raises(AzureFault):
        await run(Time(), Answered([answer(404, x_ms_error_code="BlobNotFound")]), told=told)
    assert [(call.outcome, call.attempts) for call in told] == [
        ("ok", 1),
        ("ok", 3),
        ("missing", 1),
    ]


SECRET = "sig=abcdefSECRET%3D"


@pytest.mark.parametrize(
    "error",
    [
        ServiceRequestError(SECRET),
        AzureError(SECRET),
        ValueError(SECRET),
        TypeError(SECRET),
        ClientAuthenticationError(SECRET),
        HttpResponseError(SECRET),
        answer(403, x_ms_error_code=SECRET, x_ms_request_id=SECRET),
        HttpResponseError(SECRET, response=Response(403, x_ms_error_code="AuthenticationFailed")),
    ],
    ids=["sent", "azure", "value", "type", "token", "no-status", "headers", "body"],
)
async def test_no_text_of_the_sdk_or_of_headers_comes_into_a_message(error):
    with pytest.raises(AzureFault) as caught:
        await run(Time(), Answered([error] * 9))
    public = caught.value.public("get", "a/b", write=True)
    for text in (str(caught.value), str(public), repr(public)):
        assert "SECRET" not in text
    # And a traceback in a log shows the judgement alone.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_refusal_of_the_token_service_is_not_taken_for_one_of_the_storage():
    refused = ClientAuthenticationError("AADSTS700016: no such app", response=Response(400))
    assert "AADSTS700016" in fault_of(refused, NOW).detail
    stored = ClientAuthenticationError(
        "AADSTS1", response=Response(403, x_ms_error_code="AuthenticationFailed")
    )
    assert "clock" in fault_of(stored, NOW).detail


def test_not_modified_has_the_code_of_a_failed_condition():
    assert fault_of(answer(304, x_ms_error_code="ConditionNotMet"), NOW).kind is Kind.UNCHANGED
    assert fault_of(answer(412, x_ms_error_code="ConditionNotMet"), NOW).kind is Kind.MISMATCH


@given(st.integers(0, 999), st.text(max_size=40), st.text(max_size=40))
def test_any_answer_is_judged(status, code, retry_after):
    fault = fault_of(answer(status, x_ms_error_code=code, Retry_After=retry_after), NOW)
    assert fault.retry_after is None or fault.retry_after >= 0
    if fault.kind is Kind.MISSING:
        assert code in {"BlobNotFound", "ResourceNotFound"}


def test_the_sdk_writes_no_paths_into_our_log():
    from secure_cache.storage.azure_blob import AzureAccount, AzureOptions

    logging.getLogger("azure").setLevel(logging.NOTSET)
    AzureAccount.connect(AzureOptions(credential="azure-cli", account_name="abc"))
    assert logging.getLogger("azure").getEffectiveLevel() >= logging.WARNING


def test_reading_ahead_follows_the_reader():
    pace = Pace()
    for _ in range(9):
        pace.reader_waited()
    assert pace.step == (4 << 20, 3)
    for _ in range(9):
        pace.bytes_waited(0.5)
    assert pace.step == (4 << 20, 3)
    for _ in range(9):
        pace.bytes_waited(1.5)
    assert pace.step == (256 << 10, 0)


def test_a_socket_that_is_left_open_is_cut():
    ours, theirs = Sockets(), socket.create_server(("127.0.0.1", 0))
    one = ours.make((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 0)))
    one.connect(theirs.getsockname())
    peer, _ = theirs.accept()
    with theirs, peer, one:
        anyio.run(ours.close)
        assert peer.recv(1) == b""
