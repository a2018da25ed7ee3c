"""What a Horizon is called in logs and metrics: bounded, told apart, and without secrets."""

import pytest

from paywatch.wiring.horizons import name_horizons


@pytest.mark.parametrize(
    ("urls", "names"),
    [
        (["https://Horizon.example"], ["horizon.example"]),
        (["http://h.example:8000/key/hunter2"], ["h.example:8000"]),
        (["https://h/a", "https://h/b", "https://i"], ["h", "h#2", "i"]),
        (["http://[::1]:8000"], ["[::1]:8000"]),
    ],
)
def test_each_is_named_by_its_host_and_port_never_by_its_path(
    urls: list[str], names: list[str]
) -> None:
    assert name_horizons(urls) == names
