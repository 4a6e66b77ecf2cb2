"""Addresses without the passwords in them."""

import re

__all__ = ["without_passwords"]

_USER = re.compile(r"(?<=://)[^/?#\s]*@")


def without_passwords(text: str) -> str:
    """A text whose addresses, `scheme://user:password@host/…`, begin with their host."""
    return _USER.sub("", text)
