"""What `./scripts/demo` and `./scripts/bench` share: a relay set up in a folder, and clients for it.

Everything here uses the relay as its operator does, by the `relay` command, and imports nothing of the package:
what is shown and measured is what people run.
"""
