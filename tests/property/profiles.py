"""Hypothesis profiles: `dev` explores anew each time, `ci` tries the same examples every time."""

import os

from hypothesis import HealthCheck, settings


def load() -> None:
    """Register the profiles and load one, unless --hypothesis-profile named one."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    settings.register_profile("dev", deadline=None, max_examples=40, suppress_health_check=slow)
    settings.register_profile(
        "ci",
        deadline=None,
        max_examples=80,
        derandomize=True,
        print_blob=True,
        suppress_health_check=slow,
    )
    if settings.get_current_profile_name() == "default":
        settings.load_profile("ci" if os.environ.get("CI") else "dev")
