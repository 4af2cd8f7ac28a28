import pytest

from lowbit import kernels

PARAMS = kernels.isas()


@pytest.fixture(params=PARAMS)
def isa(request: pytest.FixtureRequest) -> str:
    """Each instruction set that runs here; test_isas.py says which should, and skips the rest."""
    return request.param
