"""Fixtures of this floor."""

from doorway import door, keyring, open_door

__all__ = ["door", "keyring", "open_door"]
