"""The whole of paywatch at a glance: a network, a merchant, a daemon, and payments."""

from paywatch.cli.demo.command import demo

__all__ = ["demo"]
