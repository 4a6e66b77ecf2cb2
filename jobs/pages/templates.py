"""The HTML templates beside this file."""

from typing import Any

from jinja2 import Environment, PackageLoader

__all__ = ["render"]


def render(template: str, /, **values: Any) -> str:
    """Fill in a template; values are escaped."""
    environment = Environment(
        loader=PackageLoader("jobs.pages", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
