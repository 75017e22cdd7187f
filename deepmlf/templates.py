"""Jinja templates of the pages and cards that the project writes."""

from jinja2 import Environment, PackageLoader, StrictUndefined


def templates_of(package: str, *, html: bool) -> Environment:
    """The templates in a package's ``templates`` folder; what they name must be there.

    Args:
        package: Of the project.
        html: Whether what they are filled with is escaped for HTML.
    """
    return Environment(
        loader=PackageLoader(package),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=html,
    )
