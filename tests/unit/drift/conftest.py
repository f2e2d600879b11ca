import pytest
from captured_traffic import reference


@pytest.fixture(scope="session")
def profile():
    return reference()
