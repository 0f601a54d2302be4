"""What all tests have under pytest."""

pytest_plugins = ["deferpost.testing.fixtures", "deferpost.testing.trialcases"]
