"""Programs that receive webhooks: what they are to believe."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from deferpost import verify_webhook
from deferpost.webhooks.signing import HookSecret, sign

CHECKOUT = Path(__file__).resolve().parents[2]

OLD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NEW = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
BODY = b'{"type": "job.succeeded"}'


def signed(*secrets: str, at: float | None = None) -> dict[str, str]:
    """The header fields of a notification that is sent now."""
    keys = [HookSecret(secret) for secret in secrets]
    return sign(keys, "job_1_a", time.time() if at is None else at, BODY)


@pytest.mark.parametrize("secrets", [OLD, [OLD], (NEW, OLD), iter([NEW, OLD])])
def test_verified(secrets: object) -> None:
    """One secret or several will do, as texts."""
    assert verify_webhook(secrets, signed(OLD), BODY) == "job_1_a"  # type: ignore[arg-type]


def test_while_secrets_change() -> None:
    """What is signed with the old and the new secret is known to whoever has either."""
    for secret in (OLD, NEW):
        assert verify_webhook(secret, signed(NEW, OLD), BODY) == "job_1_a"


def test_not_to_be_trusted() -> None:
    """What is signed by others, changed, or too old is refused."""
    with pytest.raises(ValueError, match="no signature"):
        verify_webhook(NEW, signed(OLD), BODY)
    with pytest.raises(ValueError, match="no signature"):
        verify_webhook(OLD, signed(OLD), BODY + b" ")
    with pytest.raises(ValueError, match="no signature"):
        verify_webhook([], signed(OLD), BODY)
    with pytest.raises(ValueError, match="too far from now"):
        verify_webhook(OLD, signed(OLD, at=time.time() - 400), BODY)
    with pytest.raises(ValueError, match="there is no webhook-id"):
        verify_webhook(OLD, {}, BODY)
    with pytest.raises(ValueError, match="whsec_"):
        verify_webhook("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", signed(OLD), BODY)


def test_the_time_that_is_given() -> None:
    """A receiver with a clock of its own, or another tolerance, says so."""
    fields = signed(OLD, at=1000.0)
    assert verify_webhook(OLD, fields, BODY, now=1001.0) == "job_1_a"
    assert verify_webhook(OLD, fields, BODY, now=5000.0, tolerance=4000.0) == "job_1_a"


def test_a_receiver_loads_no_twisted() -> None:
    """A program that only receives does not load Twisted."""
    program = (
        "import sys\n"
        "from deferpost import verify_webhook\n"
        "print(*sorted(n for n in sys.modules if n.split('.')[0] in ('twisted', 'zope', 'treq')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [], "")
