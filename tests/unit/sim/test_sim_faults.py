import asyncio

import pytest

from paywatch.sim import Fault, FaultRule, Faults, FaultSettings, Moment
from paywatch.sim.faults import WHERE

HALF = FaultSettings(tuple(FaultRule(fault, 0.1) for fault in Fault), seed=7)


def draws(settings: FaultSettings, moment: Moment, count: int = 200) -> list[Fault | None]:
    faults = Faults(settings)
    return [faults.draw(moment, "/payments") for _ in range(count)]


@pytest.mark.parametrize("moment", Moment)
def test_the_same_seed_gives_the_same_faults_and_another_seed_others(moment: Moment) -> None:
    other = FaultSettings(HALF.rules, seed=8)
    assert draws(HALF, moment) == draws(HALF, moment)
    assert draws(HALF, moment) != draws(other, moment)


@pytest.mark.parametrize("moment", Moment)
def test_every_fault_of_a_moment_is_drawn_and_no_other(moment: Moment) -> None:
    found = set(draws(HALF, moment, 5000)) - {None}
    assert found == {fault for fault in Fault if moment in WHERE[fault]}


def test_moments_do_not_disturb_each_other() -> None:
    alone = draws(HALF, Moment.PAGE)
    faults = Faults(HALF)
    mixed = []
    for _ in range(200):
        faults.draw(Moment.EVENT, "/payments")
        mixed.append(faults.draw(Moment.PAGE, "/payments"))
    assert mixed == alone


def test_a_rule_may_name_its_moment_and_path() -> None:
    rule = FaultRule(Fault.HANG, 1.0, at=Moment.STREAM, path="/accounts/")
    faults = Faults(FaultSettings((rule,)))
    assert faults.draw(Moment.STREAM, "/accounts/G/payments") == Fault.HANG
    assert faults.draw(Moment.PAGE, "/accounts/G/payments") is None
    assert faults.draw(Moment.STREAM, "/payments") is None


def test_a_scripted_fault_strikes_once_and_says_so() -> None:
    faults = Faults()
    scripted = faults.next(Fault.HTML)
    assert not scripted.consumed.is_set()
    assert faults.draw(Moment.EVENT, "/payments") is None, "an event cannot be a page of HTML"
    assert faults.draw(Moment.PAGE, "/payments") == Fault.HTML
    assert scripted.consumed.is_set()
    assert faults.draw(Moment.PAGE, "/payments") is None


def test_scripted_faults_strike_in_order() -> None:
    faults = Faults()
    faults.script([Fault.NOT_FOUND, Fault.SERVER_ERROR], at=Moment.PAGE)
    assert [faults.draw(Moment.PAGE, "/") for _ in range(3)] == [
        Fault.NOT_FOUND, Fault.SERVER_ERROR, None
    ]  # fmt: skip


def test_stopped_faults_do_nothing() -> None:
    faults = Faults(FaultSettings.everything(1.0, seed=1))
    faults.next(Fault.HANG)
    faults.stop()
    assert faults.draw(Moment.PAGE, "/") is None


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: FaultRule(Fault.HANG, 1.1), "rate"),
        (lambda: FaultRule(Fault.HANG, -0.1), "rate"),
        (lambda: FaultRule(Fault.END_OF_STREAM, 0.5, at=Moment.PAGE), "at"),
        (lambda: FaultSettings(delay_s=-1), "delay_s"),
        (lambda: FaultSettings(replayed=-1), "replayed"),
        (lambda: Faults().next(Fault.HTML, at=Moment.EVENT), "at"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(make: object, field: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=field):
        make()


async def test_waiting_for_a_scripted_fault() -> None:
    faults = Faults()
    scripted = faults.next(Fault.CUT)
    asyncio.get_running_loop().call_soon(faults.draw, Moment.EVENT, "/")
    await asyncio.wait_for(scripted.consumed.wait(), 1)
