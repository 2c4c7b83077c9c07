"""Headers that the OpenAI SDKs act on."""

import pytest

from conclave.gateway.access.scope import RateState
from conclave.gateway.api.headers import duration, error_headers, rate_headers
from conclave.gateway.errors import Forbidden, NoExpertLeft, RateLimited, Unauthenticated


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.012, "12ms"),
        (0.9999, "1000ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (59.96, "60s"),
        (60, "1m0s"),
        (360, "6m0s"),
    ],
)
def test_durations_are_written_as_the_openai_api_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_refusal_is_never_retried_and_a_failure_may_be() -> None:
    assert (b"x-should-retry", b"false") in error_headers(Forbidden("no"))
    assert (b"x-should-retry", b"true") in error_headers(NoExpertLeft("none"))


def test_a_rate_limit_says_when_to_come_back_rounded_up() -> None:
    found = dict(error_headers(RateLimited("slow down", retry_after_s=1.2)))
    assert (found[b"retry-after-ms"], found[b"retry-after"]) == (b"1200", b"2")


def test_a_missing_key_says_how_to_authenticate() -> None:
    assert (b"www-authenticate", b"Bearer") in error_headers(Unauthenticated("no key"))


def test_the_rate_headers_are_those_of_the_openai_api() -> None:
    assert dict(rate_headers(RateState(limit=60, remaining=59, reset_s=1.0))) == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"59",
        b"x-ratelimit-reset-requests": b"1s",
    }
