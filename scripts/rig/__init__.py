"""What `./scripts/demo`, `./scripts/bench`, `./scripts/month-end` and `./scripts/soak` share: a relay, and clients for it.

Everything here uses the relay as its operator does, by the `relay` command: what is shown and measured is what people
run.  `rig.inside` alone imports the package, where the command line would take hours.
"""
