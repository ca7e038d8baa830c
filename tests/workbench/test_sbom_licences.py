"""What the words of packages mean as licences, in tables, and which of them are denied."""

import pytest

from mooring.workbench.sbom.debian_packages import copyright_licences
from mooring.workbench.sbom.files import KeptFiles
from mooring.workbench.sbom.licences import denied, from_debian, recognised
from mooring.workbench.sbom.packages import Kind, Package
from mooring.workbench.sbom.python_packages import python_packages


@pytest.mark.parametrize(
    ("words", "expression"),
    [
        ("MIT", "MIT"),
        ("mit", "MIT"),
        ("MIT License", "MIT"),
        ("The MIT License (MIT)", "MIT"),
        ("Apache-2.0", "Apache-2.0"),
        ("Apache 2.0", "Apache-2.0"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("BSD 3-Clause License", "BSD-3-Clause"),
        ("BSD-3-Clause", "BSD-3-Clause"),
        ("3-Clause BSD License", "BSD-3-Clause"),
        ("MPL-2.0", "MPL-2.0"),
        ("MPL 2.0", "MPL-2.0"),
        ("PSF", "PSF-2.0"),
        ("Apache-2.0 and MIT", "Apache-2.0 AND MIT"),
        ("MIT AND (Apache-2.0 OR BSD-2-Clause)", "MIT AND (Apache-2.0 OR BSD-2-Clause)"),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "GPL-2.0-only WITH Classpath-exception-2.0"),
        ("BSD", None),
        ("BSD License", None),
        ("Apache", None),
        ("Apache Software License", None),
        ("MIT/X11", None),
        ("NVIDIA Proprietary Software", None),
        ("((((", None),
        ("AND", None),
        ("", None),
    ],
)
def test_words_are_recognised_only_where_they_mean_one_licence(words: str, expression: str | None) -> None:
    assert recognised(words) == expression


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        ("Expat", "MIT"),
        ("GPL-2", "GPL-2.0-only"),
        ("GPL-2+", "GPL-2.0-or-later"),
        ("LGPL-2.1+", "LGPL-2.1-or-later"),
        ("GFDL-1.3", "GFDL-1.3-only"),
        ("GPL-2+ or Artistic", "GPL-2.0-or-later OR Artistic-1.0"),
        ("BSD-3-clause and Expat", "BSD-3-Clause AND MIT"),
        ("zlib", "Zlib"),
        ("GPL-3+ with Bison exception", "GPL-3+ with Bison exception"),
        ("GPL-1+ or Artistic, and BSD", "GPL-1+ or Artistic, and BSD"),
        ("public-domain", "public-domain"),
    ],
)
def test_short_names_of_debian_are_translated_or_kept(words: str, meaning: str) -> None:
    assert from_debian(words) == meaning


def metadata_licences(*lines: str) -> tuple[str, ...]:
    text = "\n".join(("Name: it", "Version: 1", *lines)) + "\n"
    (package,) = python_packages(KeptFiles({"it-1.dist-info/METADATA": text.encode()}))
    return package.licences


@pytest.mark.parametrize(
    ("lines", "licences"),
    [
        (("License-Expression: mit or apache-2.0", "License: GPL"), ("MIT OR Apache-2.0",)),
        (("License-Expression: LicenseRef-Ours",), ("LicenseRef-Ours",)),
        (("License: BSD-3-Clause", "Classifier: License :: OSI Approved :: BSD License"), ("BSD-3-Clause",)),
        (("License: BSD", "Classifier: License :: OSI Approved :: BSD License"), ("BSD",)),
        (("License: UNKNOWN", "Classifier: License :: OSI Approved :: MIT License"), ("MIT",)),
        (("Classifier: License :: OSI Approved :: BSD License",), ("BSD License",)),
        (
            (
                "License: Dual License",
                "Classifier: License :: OSI Approved :: BSD License",
                "Classifier: License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)",
            ),
            ("BSD License", "MPL-2.0"),
        ),
        (
            ("License: NVIDIA Proprietary Software", "Classifier: License :: Other/Proprietary License"),
            ("NVIDIA Proprietary Software",),
        ),
        (("License: MIT License", "        ", "        Permission is hereby granted" * 9), ("MIT",)),
        (("License: Copyright (c) somebody" + " and another" * 20,), ()),
        (("License: © Müller",), ("© Müller",)),
        (("Classifier: License :: OSI Approved",), ()),
        ((), ()),
    ],
)
def test_surest_word_of_a_python_package_counts(lines: tuple[str, ...], licences: tuple[str, ...]) -> None:
    assert metadata_licences(*lines) == licences


@pytest.mark.parametrize(
    ("text", "licences"),
    [
        ("", []),
        ("This is GPL-2+.\n\nLicense: MIT\n", []),
        ("Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nLicense: Expat\n", ["MIT"]),
        (
            "Format: http://dep.debian.net/deps/dep5\n\nFiles: *\nLicense: GPL-2+\n text\n\n"
            "Files: b\nLicense: GPL-2+\n\nLicense: BSD-3-clause\n only quoted by name elsewhere\n",
            ["GPL-2.0-or-later"],
        ),
        ("\x00\xff: \n\n\n:\n :\n", []),
    ],
)
def test_copyright_file_is_read_where_it_is_machine_readable(text: str, licences: list[str]) -> None:
    assert copyright_licences(text) == licences


@pytest.mark.parametrize(
    ("licences", "patterns", "is_denied"),
    [
        (("GPL-3.0-only",), ("GPL-3.0-only",), True),
        (("GPL-3.0-only",), ("gpl-*",), True),
        (("LGPL-3.0-only",), ("GPL-*",), False),
        (("MIT OR GPL-2.0-only",), ("GPL-*",), False),
        (("MIT OR GPL-2.0-only",), ("GPL-*", "MIT"), True),
        (("MIT AND (GPL-2.0-only OR Zlib)",), ("GPL-*",), False),
        (("MIT AND GPL-2.0-only",), ("GPL-*",), True),
        (("MIT", "AGPL-3.0-only"), ("AGPL-*",), True),
        (("GPL-2.0-only WITH Classpath-exception-2.0",), ("GPL-2.0-only",), False),
        (("GPL-2.0-only WITH Classpath-exception-2.0",), ("GPL-*",), True),
        (("GPL-2+ with OpenSSL exception",), ("GPL-2.0-or-later",), True),
        (("Some GPL-3, changed",), ("GPL-3.0-*",), True),
        (("BSD License",), ("BSD License",), True),
        ((), ("unknown",), True),
        ((), ("*GPL*",), False),
        (("MIT",), (), False),
    ],
)
def test_licence_is_denied_where_no_choice_is_left(
    licences: tuple[str, ...], patterns: tuple[str, ...], is_denied: bool
) -> None:
    package = Package(Kind.PYTHON, "it", "1", licences)
    assert [found for found, _ in denied([package], patterns)] == ([package] if is_denied else [])
