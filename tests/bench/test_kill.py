"""What tells whether a kept job was lost, run twice, or answered wrongly."""

from __future__ import annotations

import hashlib
import json

import pytest

from bench.control.kill import Killed, report
from bench.control.killed import expected
from bench.control.ledger import Findings, Sent, Stored, check
from deferpost.model import Reason, State
from deferpost.records import JobRecord

RAN = ["begin", "end"]


def _sent(path: str = "/thread", name: str = "a", is_keyed: bool = True) -> Sent:
    return Sent(name.rjust(24, "x"), path, 300, is_keyed)


def _stored(call: Sent, state: State = State.SUCCEEDED, **more: object) -> Stored:
    result = more.pop("result", expected(call.path, call.body))
    assert result is None or isinstance(result, bytes)
    fields: dict[str, object] = {
        "number": 1,
        "id": "job",
        "request_id": call.name,
        "route": call.path,
        "pool": "thread",
        "principal": None,
        "state": state,
        "created": 1.0,
        "ttl": 1.0,
        "urgency": 3,
        "retries": 0,
        "attempt": 1,
        "status": 200,
    }
    return Stored(JobRecord(**{**fields, **more}), result)  # type: ignore[arg-type]  # all by name


def test_good() -> None:
    """A job that was promised, has run once, and has its own result is good."""
    call = _sent()
    call.answered(202, {}, b'{"id": "job"}')
    call.answered(200, {}, expected(call.path, call.body))
    found = check([call], [_stored(call)], {call.name: RAN})
    assert found.is_good
    assert (found.accepted, found.ran, found.states) == (1, 1, {"succeeded": 1})


def test_not_accepted() -> None:
    """Nobody may rely on a call that was refused, or had no answer."""
    refused, lost = _sent(name="a"), _sent(name="b")
    refused.answered(503, {}, b'{"reason": "store_failed"}')
    found = check([refused, lost], [], {})
    assert found.is_good
    assert (found.accepted, refused.refused) == (0, 1)


def test_lost() -> None:
    """One that was accepted has to be there, with an end and a result."""
    calls = [_sent(name=name) for name in "abc"]
    for call in calls:
        call.answered(202, {}, json.dumps({"id": "job"}).encode())
    stored = [
        _stored(calls[1], State.QUEUED, attempt=0, result=None),
        _stored(calls[2], result=None),
    ]
    found = check(calls, stored, {})
    assert len(found.lost) == 3
    assert not found.doubled


@pytest.mark.parametrize(("path", "times"), [("/thread", 2), ("/retried", 3)])
def test_run_too_often(path: str, times: int) -> None:
    """One run is allowed, and one more for each retry."""
    call = _sent(path)
    stored = [_stored(call, attempt=times)]
    assert check([call], stored, {call.name: ["begin"] * (times - 1) + ["end"]}).is_good
    found = check([call], stored, {call.name: ["begin"] * times + ["end"]})
    assert len(found.doubled) == 1


def test_there_twice() -> None:
    """A call is one job."""
    call = _sent()
    found = check([call], [_stored(call), _stored(call, id="other")], {call.name: RAN})
    assert len(found.doubled) == 1


def test_wrong_answers() -> None:
    """A result belongs to its call, never changes, and each status has its reason."""
    call = _sent()
    call.answered(200, {}, b"something else")
    assert len(call.wrong) == 1
    call.answered(200, {}, expected(call.path, call.body))
    assert len(call.wrong) == 2
    call.answered(500, {}, b"{}")
    call.answered(202, {}, b'{"id": "one"}')
    call.answered(202, {}, b'{"id": "two"}')
    assert len(call.wrong) == 4
    assert len(check([call], [], {}).wrong) == 4


def test_wrong_ends() -> None:
    """A job ends as it may, after it has run, with the result that its client has seen."""

    def wrong(stored: Stored, *words: str) -> int:
        return len(check([call], [stored], {call.name: words}).wrong)

    call = _sent("/retried")
    assert wrong(_stored(call), *RAN) == 0
    assert wrong(_stored(call), "begin") == 1, "it did not run to its end"
    assert wrong(_stored(call, result=b"other"), *RAN) == 1
    assert wrong(_stored(call, attempt=0), *RAN) == 1
    failed = {"reason": Reason.WORKER_LOST, "status": 502, "result": b"{}"}
    assert wrong(_stored(call, State.FAILED, attempt=2, **failed), "begin") == 0
    assert wrong(_stored(call, State.FAILED, attempt=1, **failed), "begin") == 1, "a retry is left"
    canceled = _stored(call, State.CANCELED, reason=Reason.CLIENT_DISCONNECTED, result=b"{}")
    assert wrong(canceled, "begin") == 0, "nobody was promised anything"
    call.is_promised = True
    assert wrong(canceled, "begin") == 1
    call.is_unwanted = True
    assert wrong(canceled, "begin") == 0
    call.seen = (200, hashlib.sha256(b"another").hexdigest())
    assert wrong(_stored(call), *RAN) == 1
    assert len(check([], [_stored(call)], {}).wrong) == 1, "nobody sent it"


def test_report() -> None:
    """It says what was seen, and each thing that is wrong."""
    findings = Findings(accepted=3, ran=4, lost=["a job"])
    findings.states.update(["succeeded", "succeeded", "failed worker_lost"])
    seen = Killed(
        rounds=2, early=1, starts=[0.5, 1.5, 1.0], failed=["a client hangs"], findings=findings
    )
    seen.sent, seen.refused = 9, 2
    assert not seen.is_good
    assert report(seen) == [
        "rounds: 2, of which 1 ended before jobs were kept and 0 by SIGTERM",
        "calls: 9 sent, 3 accepted, 2 refusals; 4 runs began",
        "jobs by their end: 1 failed worker_lost, 2 succeeded",
        "lost: 1",
        "run too often: 0",
        "wrong: 0",
        "processes left behind: 0",
        "starts, until jobs are kept: 1.00 s in the median, 1.50 s at most",
        "  a job",
        "  a client hangs",
    ]
