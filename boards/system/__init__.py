"""The boards of the system tests: emulated machines with Debian on them, whole, and what is tried with them."""
