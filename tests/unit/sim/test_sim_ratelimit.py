import pytest

from paywatch.sim import Quota
from paywatch.sim.ratelimit import RateLimiter


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_taken_and_then_one_a_second() -> None:
    clock = Clock()
    limiter = RateLimiter(Quota(per_hour=3600, burst=4), clock)

    verdicts = [limiter.take("me") for _ in range(6)]

    assert [v.limited for v in verdicts] == [False] * 5 + [True]
    assert [v.remaining for v in verdicts] == [4, 3, 2, 1, 0, 0]
    assert verdicts[0].headers() == {
        "X-RateLimit-Limit": "5",
        "X-RateLimit-Remaining": "4",
        "X-RateLimit-Reset": "1",
    }
    assert verdicts[5].headers()["Retry-After"] == "1"
    clock.now += 1
    assert not limiter.take("me").limited
    assert limiter.take("me").limited


def test_addresses_are_counted_apart() -> None:
    limiter = RateLimiter(Quota(per_hour=1, burst=0), Clock())
    assert not limiter.take("me").limited
    assert limiter.take("me").limited
    assert not limiter.take("you").limited


def test_a_refused_request_costs_nothing() -> None:
    clock = Clock()
    limiter = RateLimiter(Quota(per_hour=3600, burst=0), clock)
    limiter.take("me")
    for _ in range(100):
        assert limiter.take("me").limited
    clock.now += 1
    assert not limiter.take("me").limited


@pytest.mark.parametrize(("per_hour", "burst"), [(0, 1), (-1, 1), (1, -1)])
def test_a_quota_that_cannot_be_is_refused(per_hour: int, burst: int) -> None:
    with pytest.raises(ValueError, match=r"per_hour|burst"):
        Quota(per_hour, burst)
