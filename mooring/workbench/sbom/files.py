"""The few files that say what is installed, kept from an image's archive or from folders of this machine.

Paths are relative to the root of what was read; links are followed as the image itself would, and never out of it.
"""

import posixpath
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

WANTED = re.compile(
    r"""
      (?:.*/)?[^/]+\.dist-info/METADATA
    | (?:.*/)?[^/]+\.egg-info(?:/PKG-INFO)?
    | (?:usr/local|opt)/(?:.*/)?include/python3\.\d+t?/patchlevel\.h
    | var/lib/dpkg/status(?:\.d/[^/]+)?
    | usr/share/doc/[^/]+(?:/copyright)?
    | (?:etc|usr/lib)/os-release
    """,
    re.VERBOSE,
)
# Of these it is enough to know that they are there.
LICENCE_TEXTS = re.compile(
    r"(?:.*/)?(?:[^/]+\.(?:dist|egg)-info/(?:.*/)?[^/]*(?:LICEN[CS]E|COPYING)[^/]*|lib/python3\.\d+t?/LICENSE\.txt)",
    re.IGNORECASE,
)
DISTRIBUTIONS = ("*.dist-info/**/*", "*.egg-info/PKG-INFO", "*.egg-info")
# The longest that is known to be honest, a desktop's list of packages, has a third of it.
MAX_BYTES = 16 << 20
MAX_HOPS = 40  # as many links as Linux follows


@dataclass
class KeptFiles:
    """Files by their paths, links by theirs, and paths of texts of licences, which are not kept themselves."""

    contents: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    licence_texts: set[str] = field(default_factory=set)

    def paths(self, suffixes: tuple[str, ...]) -> Iterator[str]:
        """Yield the sorted paths that end in one of some ways."""
        yield from sorted(path for path in {*self.contents, *self.links} if path.endswith(suffixes))

    def read(self, path: str) -> str | None:
        """Return what a file holds, or None where it or what it links to was not kept."""
        for _ in range(MAX_HOPS):
            if path in self.contents:
                return self.contents[path].decode("utf-8", errors="replace")
            link = next((place for place in _places(path) if place in self.links), None)
            if link is None:
                return None
            target = posixpath.join("/", posixpath.dirname(link), self.links[link], path[len(link) + 1 :])
            path = posixpath.normpath(target).lstrip("/")
        return None


def _places(path: str) -> Iterator[str]:
    """Yield a path and its folders."""
    while path:
        yield path
        path = posixpath.dirname(path)


def keep_from_archive(archive: tarfile.TarFile, on_bytes: Callable[[int], object] = lambda _: None) -> KeptFiles:
    """Return what is wanted of an archive, which is read to its end; `on_bytes` hears of each file's size."""
    kept = KeptFiles()
    for member in archive:
        on_bytes(member.size)
        path = posixpath.normpath(f"/{member.name}").lstrip("/")
        if not member.isdir() and LICENCE_TEXTS.fullmatch(path):
            kept.licence_texts.add(path)
        if not WANTED.fullmatch(path):
            continue
        if member.isreg():
            stream = archive.extractfile(member)
            assert stream is not None
            kept.contents[path] = stream.read(MAX_BYTES)
        elif member.issym():
            kept.links[path] = member.linkname
        elif member.islnk():  # another name of a file that came before
            kept.links[path] = posixpath.join("/", member.linkname)
    return kept


def keep_from_folders(folders: Iterable[str]) -> KeptFiles:
    """Return what is wanted of the folders that a Python looks in for packages; what is no folder is passed over."""
    kept = KeptFiles()
    for folder in folders:
        for pattern in DISTRIBUTIONS:
            for file in Path(folder).resolve().glob(pattern):
                path = str(file).lstrip("/")
                if LICENCE_TEXTS.fullmatch(path) and file.is_file():
                    kept.licence_texts.add(path)
                if WANTED.fullmatch(path) and file.is_file():
                    with file.open("rb") as stream:
                        kept.contents[path] = stream.read(MAX_BYTES)
    return kept
