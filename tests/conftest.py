"""Settings for all tests."""

from hypothesis import settings

# No deadline: a busy machine is not a failing test. `--hypothesis-profile=deep` is for
# a search that may take its time.
settings.register_profile("quick", deadline=None, max_examples=100)
settings.register_profile("deep", deadline=None, max_examples=5000)
settings.load_profile("quick")
