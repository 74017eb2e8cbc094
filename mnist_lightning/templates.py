"""Templates of pages and documents, filled strictly: what is missing is an error, not a gap."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def fill(path: str, /, **values: Any) -> str:
    """Fill a template.

    Args:
        path: below the package; in `.html` values are escaped unless marked as safe.
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
    environment.filters["code"] = lambda text: f"`{text}`"
    return environment.get_template(path).render(values)


def percent(share: float | None, digits: int = 2) -> str:
    """Say a share, 0 to 1, as people read it."""
    return "-" if share is None else f"{100 * share:.{digits}f} %"
