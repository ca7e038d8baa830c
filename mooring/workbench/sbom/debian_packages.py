"""Debian's packages by dpkg's own list, and their licences where their copyright files are machine-readable."""

from collections.abc import Iterator
from email.utils import parseaddr

from .files import KeptFiles
from .licences import from_debian
from .packages import Kind, Package

STATUS = ("var/lib/dpkg/status",)
# Images without dpkg itself have a file per package, beside one with its checksums.
STATUS_FOLDER = "var/lib/dpkg/status.d/"
OS_RELEASE = ("etc/os-release", "usr/lib/os-release")
# https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/, and how it was called as a proposal.
MACHINE_READABLE = ("copyright-format", "dep5", "dep-5")


def debian_packages(files: KeptFiles) -> Iterator[Package]:
    """Yield the packages that are installed; of those that were removed dpkg may still keep a record."""
    for path in files.paths(("",)):
        if path not in STATUS and not (path.startswith(STATUS_FOLDER) and not path.endswith(".md5sums")):
            continue
        for fields in stanzas(files.read(path) or ""):
            installed = fields.get("status", "install ok installed").endswith(" installed")
            if "package" in fields and "version" in fields and installed:
                yield _package(fields, f"/{path}", files)


def os_release(files: KeptFiles) -> dict[str, str]:
    """Return what the system says of itself: ID, VERSION_ID, PRETTY_NAME and more; nothing where it says nothing."""
    text = next(filter(None, map(files.read, OS_RELEASE)), "")
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """Yield the paragraphs of a control file, names of fields in small letters, continued lines joined by newlines."""
    fields: dict[str, str] = {}
    name = ""
    for line in [*text.split("\n"), ""]:
        if not line.strip():
            if fields:
                yield fields
            fields, name = {}, ""
        elif line[0] in " \t":
            if name:
                fields[name] += f"\n{line.strip()}"
        elif not line.startswith("#"):
            name, _, value = line.partition(":")
            name = name.lower()
            fields[name] = value.strip()


def _package(fields: dict[str, str], place: str, files: KeptFiles) -> Package:
    name, version = fields["package"], fields["version"]
    source, _, source_version = fields.get("source", name).partition(" ")
    copyright_file = f"usr/share/doc/{name}/copyright"
    text = files.read(copyright_file)
    return Package(
        Kind.DEBIAN,
        name,
        version,
        licences=tuple(copyright_licences(text or "")),
        licence_file=None if text is None else f"/{copyright_file}",
        locations=(place,),
        homepage=fields.get("homepage"),
        supplier=parseaddr(fields.get("maintainer", ""))[0] or None,
        architecture=fields.get("architecture"),
        source=(source, source_version.strip("()") or version),
    )


def copyright_licences(text: str) -> list[str]:
    """Return the licences of a copyright file's files, in its order; none if it is not machine-readable."""
    paragraphs = list(stanzas(text))
    form = paragraphs[0].get("format", "").lower() if paragraphs else ""
    if not any(name in form for name in MACHINE_READABLE):
        return []
    # The first line is the name, the rest the text. The first paragraph may have one for all, files have their own.
    names = [
        fields["license"].partition("\n")[0].strip()
        for index, fields in enumerate(paragraphs)
        if "license" in fields and (index == 0 or "files" in fields)
    ]
    return list(dict.fromkeys(from_debian(name) for name in names if name))
