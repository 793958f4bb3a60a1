"""Runs every suite of test_cores_*.py on every core of the table."""

import pytest
from cores_table import CASES, Case


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    """One core of the table; skipped, with the reason, where the table excludes it from this test."""
    suite = request.node.originalname.removeprefix("test_")
    if suite in request.param.excluded:
        pytest.skip(f"{request.param.name}: {request.param.excluded[suite]}")
    return request.param
