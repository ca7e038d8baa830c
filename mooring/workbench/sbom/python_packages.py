"""Python's packages, wherever in an image they lie, by the metadata of their installer; and Pythons themselves."""

import posixpath
import re
from collections.abc import Iterator
from email.message import Message
from email.parser import HeaderParser
from email.utils import parseaddr

from .files import KeptFiles
from .licences import CLASSIFIERS, recognised
from .packages import Kind, Package

METADATA = (".dist-info/METADATA", ".egg-info/PKG-INFO", ".egg-info")
PATCH_LEVEL = "/patchlevel.h"
LICENCE_CLASSIFIER = "License :: "
# Longer than this, the License field is the licence's text and not its name.
MAX_NAME = 120
SILENT_VALUES = frozenset({"", "unknown", "none", "dual license", "see license", "see license file"})


def python_packages(files: KeptFiles) -> Iterator[Package]:
    """Yield the packages, once for each place where one lies."""
    for path in files.paths(METADATA):
        text = files.read(path)
        if text is not None:
            yield _package(path, HeaderParser().parsestr(text), files.licence_texts)


def interpreters(files: KeptFiles) -> Iterator[Package]:
    """Yield the Pythons that were put there by no package manager, as the official images have them."""
    for path in files.paths((PATCH_LEVEL,)):
        version = re.search(r'#define\s+PY_VERSION\s+"([^"]+)"', files.read(path) or "")
        if version is None:
            continue
        prefix, _, name = posixpath.dirname(path).rpartition("/include/")
        licence_file = f"{prefix}/lib/{name}/LICENSE.txt"
        yield Package(
            Kind.INTERPRETER,
            "python",
            version[1],
            licence_file=f"/{licence_file}" if licence_file in files.licence_texts else None,
            locations=(f"/{prefix}",),
            homepage="https://www.python.org/",
            supplier="Python Software Foundation",
        )


def _package(path: str, metadata: Message, texts: set[str]) -> Package:
    folder = path.removesuffix("/METADATA").removesuffix("/PKG-INFO")
    # An installer's folder is called name-version, should the file inside be damaged.
    name, _, rest = posixpath.basename(folder).rpartition(".")[0].partition("-")
    licences = _licences(metadata)
    return Package(
        Kind.PYTHON,
        metadata["Name"] or name,
        metadata["Version"] or rest.partition("-py")[0] or "unknown",
        licences=licences,
        licence_file=_licence_file(path, folder, metadata, texts),
        locations=(f"/{folder}",),
        homepage=_homepage(metadata),
        supplier=_supplier(metadata),
    )


def _licences(metadata: Message) -> tuple[str, ...]:
    """Return what the metadata says, the surest first: an expression, a name, classifiers, then words."""
    expression = " ".join((metadata["License-Expression"] or "").split())
    if expression:
        return (recognised(expression) or expression,)
    text = (metadata["License"] or "").strip()
    # Where the field holds the text, its first line is the name as a rule.
    if found := recognised(text.partition("\n")[0]):
        return (found,)
    classifiers = _classifiers(metadata)
    if classifiers and all(classifier in CLASSIFIERS for classifier in classifiers):
        return tuple(dict.fromkeys(CLASSIFIERS[classifier] for classifier in classifiers))
    if text.lower() not in SILENT_VALUES and len(text) <= MAX_NAME:
        return (" ".join(text.split()),)
    return tuple(CLASSIFIERS.get(classifier, classifier) for classifier in classifiers)


def _classifiers(metadata: Message) -> list[str]:
    values = [value for value in metadata.get_all("Classifier", []) if value.startswith(LICENCE_CLASSIFIER)]
    return [name for value in values if (name := value.rpartition(" :: ")[2]) != "OSI Approved"]


def _licence_file(path: str, folder: str, metadata: Message, texts: set[str]) -> str | None:
    """Return where the text is: in a file of its own, or in the metadata."""
    own = next((text for text in sorted(texts) if text.startswith(f"{folder}/")), None)
    return f"/{own or path}" if own or len(metadata["License"] or "") > MAX_NAME else None


def _homepage(metadata: Message) -> str | None:
    urls = {}
    for value in metadata.get_all("Project-URL", []):
        label, _, url = value.partition(",")
        urls[label.strip().lower()] = url.strip()
    candidates = (metadata["Home-page"], *(urls.get(label) for label in ("homepage", "home", "repository", "source")))
    candidates = (*candidates, *urls.values())
    return next((url for url in candidates if url and url.startswith(("http://", "https://"))), None)


def _supplier(metadata: Message) -> str | None:
    for field in ("Author", "Maintainer", "Author-email", "Maintainer-email"):
        name, address = parseaddr(metadata[field] or "")
        words = metadata[field] if field in ("Author", "Maintainer") else name or address
        if words and words.lower() != "unknown":
            return " ".join(words.split())
    return None
