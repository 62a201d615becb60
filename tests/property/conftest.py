"""Settings of the property tests."""

from tests.property import profiles

profiles.load()
