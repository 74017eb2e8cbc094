"""Fill templates of pages and documents; a missing value is an error."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from mnist_lightning.text import code_span, markdown, printable


def fill(path: str, /, **values: Any) -> str:
    """Fill a template.

    Args:
        path: relative to the package. In `.html`, values are escaped unless marked as safe. In
            `.md`, filters escape them: `md` in prose, `code` between backticks, `repr` in Python.
        values: the values of the template's variables.
    """
    environment = Environment(
        loader=PackageLoader("mnist_lightning", ""),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: printable(value, keep="\n") if type(value) is str else value,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "md": markdown, "code": code_span, "repr": repr}
    return environment.get_template(path).render(values)


def percent(share: float | None, digits: int = 2) -> str:
    """Format a fraction, 0 to 1, as a percentage."""
    return "-" if share is None else f"{100 * share:.{digits}f} %"
