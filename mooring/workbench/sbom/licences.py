"""Licences: what the words of a package mean as an SPDX expression, and which of them somebody will not have.

Words that may mean several licences ("BSD License", "Apache Software License") stay words.
"""

import fnmatch
import functools
import re
from collections.abc import Sequence
from typing import Any

from cyclonedx.spdx import fixup_id, is_expression
from license_expression import get_spdx_licensing

from .packages import Package

# Spellings in the License field of Python packages, in small letters and without the words that say nothing.
SPELLINGS = {
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache2": "Apache-2.0",
    "apache2.0": "Apache-2.0",
    "asl 2.0": "Apache-2.0",
    "2 clause bsd": "BSD-2-Clause",
    "bsd 2 clause": "BSD-2-Clause",
    "simplified bsd": "BSD-2-Clause",
    "3 clause bsd": "BSD-3-Clause",
    "bsd 3": "BSD-3-Clause",
    "bsd 3 clause": "BSD-3-Clause",
    "bsd3": "BSD-3-Clause",
    "modified bsd": "BSD-3-Clause",
    "new bsd": "BSD-3-Clause",
    "expat": "MIT",
    "iscl": "ISC",
    "mozilla public 2.0": "MPL-2.0",
    "mpl2": "MPL-2.0",
    "psf": "PSF-2.0",
    "psfl": "PSF-2.0",
    "python foundation": "PSF-2.0",
    "zpl 2.1": "ZPL-2.1",
}
SILENT_WORDS = frozenset({"the", "a", "license", "licence", "licensed", "under", "version", "software", "v"})

# Classifiers that mean one licence only; the list is that of PEP 639's appendix, as far as packages are seen to use it.
CLASSIFIERS = {
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication": "CC0-1.0",
    "Eclipse Public License 2.0 (EPL-2.0)": "EPL-2.0",
    "GNU Affero General Public License v3": "AGPL-3.0-only",
    "GNU Affero General Public License v3 or later (AGPLv3+)": "AGPL-3.0-or-later",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v2 (LGPLv2)": "LGPL-2.0-only",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 1.1 (MPL 1.1)": "MPL-1.1",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "Zero-Clause BSD (0BSD)": "0BSD",
}

# Short names of https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/ that SPDX calls otherwise.
DEBIAN_NAMES = {"expat": "MIT", "artistic": "Artistic-1.0", "and": "AND", "or": "OR", "with": "WITH"}
DEBIAN_GNU = re.compile(r"(AGPL|GPL|LGPL|GFDL)-(\d)(?:\.(\d))?(\+?)", re.IGNORECASE)

UNKNOWN = "unknown"


def recognised(words: str) -> str | None:
    """Return the SPDX expression that words mean, or None.

    >>> recognised("Apache License, Version 2.0"), recognised("mit OR Apache-2.0"), recognised("BSD")
    ('Apache-2.0', 'MIT OR Apache-2.0', None)
    """
    words = " ".join(words.split())
    # Each word once: "The MIT License (MIT)".
    plain = " ".join(
        word for word in dict.fromkeys(re.findall(r"[a-z0-9.+]+", words.lower())) if word not in SILENT_WORDS
    )
    found = fixup_id(words) or SPELLINGS.get(plain) or fixup_id(plain.replace(" ", "-"))
    if found is None and words and is_expression(words):
        found = _licensing().parse(words).render()
    return found


def from_debian(words: str) -> str:
    """Return the SPDX expression that a short name of Debian's means, or the words themselves.

    >>> from_debian("GPL-2+ or Artistic"), from_debian("GPL-2+ with OpenSSL exception")
    ('GPL-2.0-or-later OR Artistic-1.0', 'GPL-2+ with OpenSSL exception')
    """
    return recognised(" ".join(map(_from_debian_word, words.split()))) or words


def _from_debian_word(word: str) -> str:
    if match := DEBIAN_GNU.fullmatch(word):
        family, major, minor, later = match.groups()
        return f"{family.upper()}-{major}.{minor or 0}-{'or-later' if later else 'only'}"
    return DEBIAN_NAMES.get(word.lower(), word)


def denied(packages: Sequence[Package], patterns: Sequence[str]) -> list[tuple[Package, str]]:
    """Return the packages with licences that patterns such as `AGPL-*` name, each with what it has.

    Of a choice ("MIT OR GPL-2.0-only") every branch must be named; words that are no expression are denied by any of
    them. The pattern `unknown` names packages that tell no licence.
    """
    found = []
    for package in packages:
        licences = package.licences or (UNKNOWN,)
        if any(_is_denied(licence, patterns) for licence in licences):
            found.append((package, " AND ".join(licences)))
    return found


def _is_denied(licence: str, patterns: Sequence[str]) -> bool:
    if is_expression(licence):
        return _is_branch_denied(_licensing().parse(licence), patterns)
    return any(
        _is_named(word, patterns) for word in (licence, *map(_from_debian_word, re.split(r"[\s,;()]+", licence)))
    )


def _is_branch_denied(branch: Any, patterns: Sequence[str]) -> bool:
    if branch.isliteral:
        return _is_named(branch.render(), patterns)
    combine = all if isinstance(branch, _licensing().OR) else any
    return combine(_is_branch_denied(inner, patterns) for inner in branch.args)


def _is_named(licence: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(licence.lower(), pattern.lower()) for pattern in patterns)


@functools.cache
def _licensing() -> Any:
    return get_spdx_licensing()
