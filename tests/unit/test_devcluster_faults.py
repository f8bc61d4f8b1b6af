"""Which faults befall a request, and what a client is then told."""

from __future__ import annotations

import json
import random
import re

import pytest
from devcluster.faults import (
    Answer,
    CutWatch,
    Delay,
    Drop,
    ExpireWatch,
    Request,
    Rule,
    expired_event,
    faults_for,
    status_object,
)
from hypothesis import given
from hypothesis import strategies as st

_GET = Request("GET", "/api/v1/namespaces/a/pods?limit=5", "program/1.0")
_WATCH = Request("GET", "/api/v1/pods?watch=true&resourceVersion=7")


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (Request("GET", "/api/v1/pods?watch=true"), True),
        (Request("GET", "/api/v1/pods?watch=1&timeoutSeconds=5"), True),
        (Request("GET", "/api/v1/pods?watch=True"), True),
        (Request("GET", "/api/v1/pods?watch=false"), False),
        (Request("GET", "/api/v1/pods?labelSelector=watch%3Dtrue"), False),
        (Request("GET", "/api/v1/namespaces/watch/pods"), False),
        (Request("DELETE", "/api/v1/pods?watch=true"), False),
    ],
)
def test_watches_are_told_from_other_requests(request_: Request, expected: bool) -> None:
    assert request_.is_watch is expected


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, True),
        ({"methods": frozenset({"GET"})}, True),
        ({"methods": frozenset({"POST", "PUT"})}, False),
        ({"path": r"/pods\?"}, True),
        ({"path": "limit=5"}, True),
        ({"path": "/secrets"}, False),
        ({"user_agent": "^program/"}, True),
        ({"user_agent": "other"}, False),
        ({"methods": frozenset({"GET"}), "path": "/secrets"}, False),
    ],
)
def test_a_rule_is_about_the_requests_that_meet_all_conditions(
    conditions: dict[str, object], expected: bool
) -> None:
    assert Rule(Delay(1), **conditions).matches(_GET) is expected


@pytest.mark.parametrize("fault", [CutWatch(1), ExpireWatch(), ExpireWatch(1)])
def test_faults_of_watches_are_about_watches_only(fault: CutWatch | ExpireWatch) -> None:
    assert Rule(fault).matches(_WATCH)
    assert not Rule(fault).matches(_GET)


def test_mistakes_in_a_rule_are_told_where_it_is_made() -> None:
    with pytest.raises(ValueError, match=r"share is 1\.5"):
        Rule(Delay(1), share=1.5)
    with pytest.raises(re.error):
        Rule(Delay(1), path="(")


@given(skip=st.integers(0, 5), times=st.none() | st.integers(0, 5), requests=st.integers(0, 20))
def test_a_rule_passes_the_first_and_ends_after_the_last(
    skip: int, times: int | None, requests: int
) -> None:
    rule = Rule(Drop(), skip=skip, times=times)
    chance = random.Random(0)
    happened = [rule.befalls(_GET, chance) for _ in range(requests)]
    last = requests if times is None else skip + times
    assert happened == [skip <= number < last for number in range(requests)]
    assert (rule.matched, rule.applied) == (requests, sum(happened))


@given(share=st.floats(0, 1), seed=st.integers())
def test_a_share_is_kept_and_repeatable(share: float, seed: int) -> None:
    def run() -> list[bool]:
        chance, rule = random.Random(seed), Rule(Drop(), share=share)
        return [rule.befalls(_GET, chance) for _ in range(400)]

    happened = run()
    assert happened == run()
    # Seven standard deviations: chance alone does not reach that in a lifetime of test runs.
    assert abs(sum(happened) / 400 - share) <= 7 * (share * (1 - share) / 400) ** 0.5 + 1e-9


_faults = st.sampled_from([Delay(1), Delay(2), Drop(), Answer(500), CutWatch(1)])


@given(st.lists(_faults))
def test_delays_add_up_and_the_first_other_fault_is_the_last(faults: list[object]) -> None:
    rules = [Rule(fault) for fault in faults]
    found = faults_for(_WATCH, rules, random.Random(0))
    others = [n for n, fault in enumerate(faults) if not isinstance(fault, Delay)]
    assert found == (faults[: others[0] + 1] if others else faults)
    asked = others[0] + 1 if others else len(faults)
    assert [rule.matched for rule in rules] == [1] * asked + [0] * (len(rules) - asked)


def test_errors_look_like_those_of_the_server() -> None:
    body = status_object(Answer(429, retry_after=3))
    assert (body["kind"], body["code"], body["reason"]) == ("Status", 429, "TooManyRequests")
    assert body["details"] == {"retryAfterSeconds": 3}
    assert status_object(Answer(409, reason="AlreadyExists"))["reason"] == "AlreadyExists"
    assert status_object(Answer(599))["reason"] == ""


def test_the_event_of_an_expired_watch_is_one_line() -> None:
    event = expired_event()
    assert event.count(b"\n") == 1
    assert event.endswith(b"\n")
    decoded = json.loads(event)
    assert (decoded["type"], decoded["object"]["code"]) == ("ERROR", 410)
    assert decoded["object"]["reason"] == "Expired"
