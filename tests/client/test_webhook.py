"""What is posted to a webhook: everything, in order, within bounds."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_cache.client.http_answer import new_client
from secure_cache.client.webhook import MAX_ALERTS, MAX_BYTES, Webhook, bodies
from secure_cache.model.errors import Malformed


@given(st.lists(st.integers(0, MAX_BYTES // 3), max_size=12), st.integers(0, 250))
def test_every_alert_is_posted_once_and_no_body_is_too_large(sizes, many):
    alerts = [{"sentence": "x" * size} for size in sizes] + [{"index": n} for n in range(many)]
    made = list(bodies("https://cache.example.com", alerts))
    documents = [json.loads(body) for body in made]
    assert [alert for document in documents for alert in document["alerts"]] == alerts
    assert {document["log"] for document in documents} <= {"https://cache.example.com"}
    assert all(len(document["alerts"]) <= MAX_ALERTS for document in documents)
    assert all(len(body) <= MAX_BYTES for body in made)
    assert all(document["alerts"] for document in documents)


def test_an_alert_that_is_too_large_goes_alone():
    alerts = [{"index": 1}, {"sentence": "\u202e" * MAX_BYTES}, {"index": 2}]
    assert [len(json.loads(body)["alerts"]) for body in bodies("log", alerts)] == [1, 1, 1]


@pytest.mark.parametrize(
    "url",
    [
        "http://hook.example.com/x",
        "secret",
        "ftp://a/x",
        "https://",
        "https://a\0b",
    ],
)
def test_what_is_no_url_of_https_is_refused_without_repeating_it(url):
    with pytest.raises(Malformed) as caught:
        Webhook(url, secret=None, client=new_client)
    assert url not in str(caught.value)
