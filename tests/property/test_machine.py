"""`Filesystem` does what the model does, and its accounts are right after every step."""

import pytest
from hypothesis import settings

from tests.property.machine import BundleMachine, EphemeralMachine

# A failure takes minutes to be made small; without one the tests end long before.
pytestmark = pytest.mark.timeout(900)

TestEphemeral = EphemeralMachine.TestCase
TestEphemeral.settings = settings(stateful_step_count=60)
TestBundle = BundleMachine.TestCase
TestBundle.settings = settings(stateful_step_count=60)
