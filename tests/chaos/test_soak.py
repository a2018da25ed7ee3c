"""A daemon at a steady rate with faults for some seconds; for an hour by a command: `make soak`."""

from datetime import timedelta

import pytest

from support.databases import open_cluster
from support.soak_report import Report
from support.soaking import Plan, open_soak

PLAN = Plan(
    minutes=0.15,
    rate=10,
    fault_rate=0.05,
    kill_every_s=2,
    expires_in=timedelta(seconds=5),
    sample_s=1,
)


@pytest.mark.timeout(120)
async def test_a_daemon_with_faults_comes_to_rest_with_nothing_lost_and_nothing_left() -> None:
    with open_cluster() as cluster:
        async with open_soak(cluster.create("soak"), PLAN, seed=20_261_121) as soak:
            await soak.run()
    report = Report.of(soak, seed=20_261_121)
    assert report.wrong == []
    assert report.figures["sessions paid"] > 50
    assert report.figures["connections to the database ended"] > 0
