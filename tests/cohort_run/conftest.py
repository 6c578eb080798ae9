from __future__ import annotations

import pytest

from cohort_world import CohortWorld, make_cohort


@pytest.fixture
def cohort_world(tmp_path) -> CohortWorld:
    return make_cohort(tmp_path)
