"""An inventory as a list of licences for people: what each package has, how many have which, and what is not known."""

from collections import Counter
from collections.abc import Iterator, Sequence

from .packages import Inventory, Package

SEE_FILE = "see its file"
UNKNOWN = "unknown"


def licence_list(inventory: Inventory) -> str:
    """Return the list, ending with the packages that do not tell."""
    packages = inventory.packages
    count = Counter(map(shown_licence, packages))
    lines = [
        f"Licences of {len(packages)} packages in {inventory.subject}",
        "",
        *_columns([("package", "version", "by", "licence"), *map(_row, packages)]),
        "",
        *_columns(
            [("packages", "licence"), *((str(number), name) for name, number in sorted(count.items(), key=_often))]
        ),
        *_untold(packages),
    ]
    return "\n".join(lines) + "\n"


def shown_licence(package: Package) -> str:
    """Return a package's licences in one line; `see its file` or `unknown` where it names none."""
    if package.licences:
        several = len(package.licences) > 1
        return " AND ".join(f"({words})" if several and " OR " in words else words for words in package.licences)
    return SEE_FILE if package.licence_file else UNKNOWN


def _row(package: Package) -> tuple[str, ...]:
    return package.name, package.version, package.kind, shown_licence(package)


def _often(pair: tuple[str, int]) -> tuple[int, str]:
    return -pair[1], pair[0]


def _untold(packages: Sequence[Package]) -> Iterator[str]:
    """Yield the packages whose licence is in a file only, and those that tell nothing."""
    files = [(package.name, package.version, package.licence_file) for package in packages if not package.licences]
    written = [(name, version, file) for name, version, file in files if file]
    silent = [package for package in packages if shown_licence(package) == UNKNOWN]
    if written:
        yield from ("", f"{SEE_FILE.capitalize()} ({len(written)}): no licence is named, its text is in")
        yield from _columns(written, indent="  ")
    if silent:
        yield from ("", f"{UNKNOWN.capitalize()} ({len(silent)}): nothing tells of a licence")
        yield from _columns([(each.name, each.version, *each.locations[:1]) for each in silent], indent="  ")


def _columns(rows: Sequence[Sequence[str]], indent: str = "") -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
