"""The HTML templates beside this file."""

from base64 import b64encode
from typing import Any

from jinja2 import Environment, PackageLoader

__all__ = ["jpeg_uri", "render"]


def jpeg_uri(photo: bytes) -> str:
    """A JPEG as a `data:` URI, for a page that loads nothing."""
    return "data:image/jpeg;base64," + b64encode(photo).decode("ascii")


def render(template: str, /, **values: Any) -> str:
    """Fill in a template; values are escaped."""
    environment = Environment(
        loader=PackageLoader("jobs.pages", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
