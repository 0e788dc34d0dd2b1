"""What all tests share: how property tests run on machines that are busy."""

from __future__ import annotations

from hypothesis import settings

# No deadline per example: a busy machine is not a bug. A failure prints how to repeat it.
settings.register_profile("house", deadline=None, print_blob=True)
settings.load_profile("house")
