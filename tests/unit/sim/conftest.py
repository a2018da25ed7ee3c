import pytest

from support.sim_town import Town, make_town


@pytest.fixture
def town() -> Town:
    return make_town()
