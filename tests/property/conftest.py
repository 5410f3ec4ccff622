"""What all property tests share: no deadline for a single example, because tests share the machine."""

from hypothesis import settings

settings.register_profile("relay", deadline=None)
settings.load_profile("relay")
