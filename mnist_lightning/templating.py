"""Fill templates of pages and documents; a missing value is an error."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from mnist_lightning.text import code_span, markdown


def fill(path: str, /, **values: Any) -> str:
    """Fill a template.

    Args:
        path: below the package; in `.html` values are escaped unless marked as safe. In `.md` each
            is escaped by a filter: `md` in prose, `code` between backticks, `repr` in Python.
        values: what it is filled with.
    """
    environment = Environment(
        loader=PackageLoader("mnist_lightning", ""),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters |= {"md": markdown, "code": code_span, "repr": repr}
    return environment.get_template(path).render(values)


def percent(share: float | None, digits: int = 2) -> str:
    """Say a share, 0 to 1, as people read it."""
    return "-" if share is None else f"{100 * share:.{digits}f} %"
