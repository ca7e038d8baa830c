"""Bills of materials: of images made by hand and this machine, and against CycloneDX's own schema."""

import importlib.metadata
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from archives import image_archive
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from docker_double import DockerDouble

from mooring.cli.sbom import main
from mooring.workbench.sbom.bill import bill_of_materials
from mooring.workbench.sbom.debian_packages import debian_packages
from mooring.workbench.sbom.files import KeptFiles, keep_from_archive
from mooring.workbench.sbom.packages import Inventory, Kind, Package
from mooring.workbench.sbom.survey import survey_environment, survey_files
from mooring.workbench.sbom.table import licence_list

NOW = datetime(2026, 1, 2, tzinfo=UTC)
FACTS = {
    "Id": "sha256:0123",
    "Created": "2026-01-01T00:00:00Z",
    "Os": "linux",
    "Architecture": "amd64",
    "Size": 10_000,
    "RepoDigests": ["registry.example/team/flowers@sha256:" + "a" * 64],
    "Config": {
        "Labels": {
            "org.opencontainers.image.base.name": "python:3.11-slim-bookworm",
            "org.opencontainers.image.base.digest": "sha256:77",
        }
    },
}
SITE = "opt/venv/lib/python3.11/site-packages"
GCC = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: somebody
License: GPL-3+

Files: debian/*
License: Expat
 Permission is hereby granted.

License: GPL-3+
 On Debian systems
"""
FILES = {
    f"{SITE}/numpy-2.4.6.dist-info/METADATA": "Metadata-Version: 2.4\nName: numpy\nVersion: 2.4.6\n"
    "License-Expression: BSD-3-Clause AND Zlib\nProject-URL: homepage, https://numpy.org\nAuthor: Travis et al.\n",
    f"{SITE}/Typing_Extensions-4.16.0.dist-info/METADATA": "Name: typing_extensions\nVersion: 4.16.0\n",
    f"{SITE}/Typing_Extensions-4.16.0.dist-info/licenses/LICENSE": "text",
    "usr/lib/python3/dist-packages/six-1.16.0.egg-info": "Name: six\nVersion: 1.16.0\nLicense: MIT\n",
    f"{SITE}/setuptools/_vendor/six-1.16.0.dist-info/METADATA": "Name: six\nVersion: 1.16.0\nLicense: MIT\n",
    f"{SITE}/broken-3.1.dist-info/METADATA": "\x00\x01 nothing that has fields",
    "usr/local/include/python3.11/patchlevel.h": '#define PY_MAJOR_VERSION 3\n#define PY_VERSION      "3.11.14"\n',
    "usr/local/lib/python3.11/LICENSE.txt": "text",
    "opt/second/include/python3.11/patchlevel.h": '#define PY_VERSION "3.11.14"\n',
    "usr/include/python3.11/patchlevel.h": '#define PY_VERSION "3.11.2"\n',
    "usr/lib/os-release": 'PRETTY_NAME="Debian GNU/Linux 12"\nID=debian\nVERSION_ID="12"\n',
    "var/lib/dpkg/status": "Package: libgcc-s1\nStatus: install ok installed\nArchitecture: amd64\n"
    "Source: gcc-12 (12.2.0-14)\nVersion: 12.2.0-14+b1\nMaintainer: Debian GCC <gcc@example.org>\nHomepage: http://gcc.gnu.org/\n"
    "Description: runtime\n two lines\n .\n Version: of the text\n\n"
    "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all\n\n"
    "Package: tar\nStatus: install ok installed\nVersion: 1.34\nArchitecture: amd64\n",
    "usr/share/doc/gcc-12-base/copyright": GCC,
    "usr/share/doc/tar/copyright": "It was downloaded from somewhere, under the GPL.\n",
    "home/METADATA": "Name: no-package\nVersion: 1\n",
}
LINKS = {"usr/share/doc/libgcc-s1": "gcc-12-base", "etc/os-release": "../usr/lib/os-release"}


def read(archive: bytes) -> KeptFiles:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r|") as tar:
        return keep_from_archive(tar)


@pytest.fixture
def inventory() -> Inventory:
    return survey_files("flowers:3", None, read(image_archive(FILES, links=LINKS)))


def problems(bill: str) -> list[str]:
    return [str(each) for each in JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill, all_errors=True) or []]


def package(inventory: Inventory, name: str) -> Package:
    (found,) = [each for each in inventory.packages if each.name == name]
    return found


def component(bill: dict[str, Any], name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = [each for each in bill["components"] if each["name"] == name]
    assert len(found) == 1
    return found[0]


def sbom(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    monkeypatch.setattr(sys, "argv", ["mooring sbom", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_everything_that_is_installed_is_found_wherever_it_lies(inventory: Inventory) -> None:
    assert [(each.kind, each.name, each.version) for each in inventory.packages] == [
        (Kind.DEBIAN, "libgcc-s1", "12.2.0-14+b1"),
        (Kind.DEBIAN, "tar", "1.34"),
        (Kind.INTERPRETER, "python", "3.11.14"),
        (Kind.PYTHON, "broken", "3.1"),
        (Kind.PYTHON, "numpy", "2.4.6"),
        (Kind.PYTHON, "six", "1.16.0"),
        (Kind.PYTHON, "typing_extensions", "4.16.0"),
    ]
    assert package(inventory, "six").locations == (
        f"/{SITE}/setuptools/_vendor/six-1.16.0.dist-info",
        "/usr/lib/python3/dist-packages/six-1.16.0.egg-info",
    )


def test_licences_are_those_that_packages_declare(inventory: Inventory) -> None:
    """Debian's are read through the link that a package's folder of documents may be."""
    assert package(inventory, "numpy").licences == ("BSD-3-Clause AND Zlib",)
    assert package(inventory, "six").licences == ("MIT",)
    assert package(inventory, "libgcc-s1").licences == ("GPL-3.0-or-later", "MIT")
    for name, file in (
        ("tar", "/usr/share/doc/tar/copyright"),
        ("python", "/usr/local/lib/python3.11/LICENSE.txt"),
        ("typing_extensions", f"/{SITE}/Typing_Extensions-4.16.0.dist-info/licenses/LICENSE"),
        ("broken", None),
    ):
        assert (package(inventory, name).licences, package(inventory, name).licence_file) == ((), file)


def test_second_name_of_a_file_and_links_that_lead_nowhere_or_in_circles_are_endured() -> None:
    metadata = {f"{SITE}/a-1.dist-info/METADATA": "Name: a\nVersion: 1\n"}
    links = {
        f"{SITE}/b-1.dist-info/METADATA": "/nowhere",
        f"{SITE}/c-1.dist-info/METADATA": "../c-1.dist-info/METADATA",
        f"{SITE}/d-1.dist-info/METADATA": "../../../../../../../../a-1.dist-info/METADATA",
    }
    doubles = {"opt/other/a-1.dist-info/METADATA": f"{SITE}/a-1.dist-info/METADATA"}
    found = survey_files("", None, read(image_archive(metadata, links=links, doubles=doubles)))
    assert [(each.name, len(each.locations)) for each in found.packages] == [("a", 2)]


def test_image_without_any_package_gives_an_empty_bill() -> None:
    found = survey_files("", None, read(image_archive({"bin/true": ""})))
    assert found.packages == ()
    assert problems(bill_of_materials(found, NOW)) == []
    assert "0 packages" in licence_list(found)


def test_image_without_dpkg_has_a_file_for_each_package() -> None:
    files = {
        "var/lib/dpkg/status.d/tzdata": "Package: tzdata\nVersion: 2026a\nArchitecture: all\n",
        "var/lib/dpkg/status.d/tzdata.md5sums": "0 usr/share/zoneinfo/UTC\n",
    }
    assert [each.name for each in survey_files("", None, read(image_archive(files))).packages] == ["tzdata"]


def test_environment_holds_what_the_interpreter_itself_says_it_does() -> None:
    found = survey_environment(sys.path)
    ours = {each.key for each in found.packages if each.kind is Kind.PYTHON}
    theirs = importlib.metadata.distributions()
    assert ours == {Package(Kind.PYTHON, each.metadata["Name"], each.version).key for each in theirs}
    assert len(ours) > 50
    assert problems(bill_of_materials(found, NOW)) == []


@pytest.mark.skipif(not shutil.which("dpkg-query"), reason="only Debian has its packages")
def test_debian_packages_are_those_that_dpkg_lists() -> None:
    kept = KeptFiles({"var/lib/dpkg/status": Path("/var/lib/dpkg/status").read_bytes()})
    for file in Path("/usr/share/doc").glob("*/copyright"):
        if file.is_file():
            kept.contents[str(file).lstrip("/")] = file.read_bytes()
    ours = [(each.name, each.version, each.architecture, each.source) for each in debian_packages(kept)]
    form = "${db:Status-Status} ${Package} ${Version} ${Architecture} ${source:Package} ${source:Version}\n"
    listed = subprocess.run(["dpkg-query", "-W", "-f", form], capture_output=True, text=True, check=True).stdout
    rows = [line.split(" ") for line in listed.splitlines() if line.startswith("installed ")]
    assert sorted(ours) == sorted((row[1], row[2], row[3], (row[4], row[5])) for row in rows)


def test_bill_of_an_image_is_valid_and_names_image_base_system_and_packages(
    docker: DockerDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    docker.hold("flowers:3", FACTS, image_archive(FILES, links=LINKS))
    output = tmp_path / "flowers.cdx.json"
    assert sbom(monkeypatch, "flowers:3", "--output", str(output)) == 0
    text = output.read_text(encoding="utf-8")
    assert problems(text) == []
    assert capsys.readouterr() == ("", "flowers:3: 4 python, 2 debian, 1 interpreter; 4 name no licence\n")
    bill = json.loads(text)
    image = bill["metadata"]["component"]
    assert (image["type"], image["name"], image["version"]) == ("container", "flowers", "3")
    assert image["purl"].startswith(f"pkg:oci/flowers@sha256:{'a' * 64}?arch=amd64")
    assert image["pedigree"]["ancestors"][0]["name"] == "python:3.11-slim-bookworm"
    assert {"name": "mooring:image:id", "value": "sha256:0123"} in image["properties"]
    (contained,) = [each["dependsOn"] for each in bill["dependencies"] if each["ref"] == image["bom-ref"]]
    assert sorted(contained) == sorted(each["bom-ref"] for each in bill["components"])
    assert component(bill, "debian")["type"] == "operating-system"
    gcc = component(bill, "libgcc-s1")
    assert gcc["purl"] == (
        "pkg:deb/debian/libgcc-s1@12.2.0-14%2Bb1?arch=amd64&distro=debian-12&upstream=gcc-12%4012.2.0-14"
    )
    assert gcc["licenses"] == [{"acknowledgement": "declared", "expression": "GPL-3.0-or-later AND MIT"}]
    assert component(bill, "typing_extensions")["purl"] == "pkg:pypi/typing-extensions@4.16.0"
    assert component(bill, "python")["cpe"] == "cpe:2.3:a:python:python:3.11.14:*:*:*:*:*:*:*"
    assert component(bill, "numpy")["externalReferences"] == [{"type": "website", "url": "https://numpy.org"}]
    assert len(component(bill, "six")["evidence"]["occurrences"]) == 2


def test_same_image_at_the_same_time_gives_the_same_bytes(
    docker: DockerDouble, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    docker.hold("flowers:3", FACTS, image_archive(FILES, links=LINKS))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767312000")
    bills = []
    for _ in range(2):
        assert sbom(monkeypatch, "flowers:3") == 0
        bills.append(capsys.readouterr().out)
    assert bills[0] == bills[1]
    assert '"timestamp": "2026-01-02T00:00:00+00:00"' in bills[0]
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    assert sbom(monkeypatch, "flowers:3") == 1
    assert 'SOURCE_DATE_EPOCH is "yesterday"' in capsys.readouterr().err


def test_list_shows_every_licence_and_ends_with_those_that_are_not_told(
    docker: DockerDouble, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    docker.hold("flowers:3", FACTS, image_archive(FILES, links=LINKS))
    assert sbom(monkeypatch, "flowers:3", "--format", "licences") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Licences of 7 packages in flowers:3"
    assert "numpy              2.4.6         python       BSD-3-Clause AND Zlib" in lines
    assert "libgcc-s1          12.2.0-14+b1  debian       GPL-3.0-or-later AND MIT" in lines
    assert "3         see its file" in lines
    assert lines[-2:] == [
        "Unknown (1): nothing tells of a licence",
        f"  broken  3.1  /{SITE}/broken-3.1.dist-info",
    ]


def test_denied_licences_fail_after_the_bill_was_written(
    docker: DockerDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    docker.hold("flowers:3", FACTS, image_archive(FILES, links=LINKS))
    output = tmp_path / "bill.json"
    assert sbom(monkeypatch, "flowers:3", "--deny", "gpl-*", "--deny", "unknown", "--output", str(output)) == 1
    told = capsys.readouterr().err
    assert "denied: libgcc-s1 12.2.0-14+b1 has GPL-3.0-or-later AND MIT (/var/lib/dpkg/status)" in told
    assert "denied: broken 3.1 has unknown" in told
    assert "numpy" not in told
    assert problems(output.read_text(encoding="utf-8")) == []
    assert sbom(monkeypatch, "flowers:3", "--deny", "GPL-*", "--only", "python", "--output", str(output)) == 0
    assert {each["purl"].split("/")[0] for each in json.loads(output.read_text())["components"] if "purl" in each} == {
        "pkg:pypi",
        "pkg:generic",
    }


@pytest.mark.parametrize("arguments", [(), ("flowers:3", "--environment"), ("flowers:3", "--format", "spdx")])
def test_wrong_usage_exits_2(monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    assert sbom(monkeypatch, *arguments) == 2


def test_image_that_is_not_there_is_named_and_nothing_is_written(
    docker: DockerDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sbom(monkeypatch, "weeds", "--output", str(tmp_path / "bill.json")) == 1
    assert "No such image: weeds. Build the image first" in capsys.readouterr().err
    docker.hold("flowers:3", FACTS, image_archive(FILES)[:4000])
    assert sbom(monkeypatch, "flowers:3", "--output", str(tmp_path / "bill.json")) == 1
    assert "`docker export` ended with" in capsys.readouterr().err
    assert not (tmp_path / "bill.json").exists()


def test_interrupt_ends_with_130_and_leaves_no_container(docker: DockerDouble) -> None:
    """Docker is about to export then, and says nothing for ever."""
    docker.hold("flowers:3", FACTS, b"")
    archive = docker.folder / "flowers:3.tar"
    archive.unlink()
    os.mkfifo(archive)
    program = "import sys; sys.argv = ['mooring sbom', 'flowers:3']\nfrom mooring.cli.sbom import main\nmain()"
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and "export" not in [words[0] for words in docker.words]:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert "interrupted; nothing was written." in process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert docker.words[-1][0] == "rm"
    assert docker.words[-1][-1] == next(words for words in docker.words if words[0] == "create")[2]


def test_missing_library_is_answered_with_what_to_install() -> None:
    program = (
        "import sys; sys.modules['cyclonedx'] = None; sys.argv = ['mooring sbom', '--environment']\n"
        "from mooring.cli.sbom import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cyclonedx is not installed, which knows CycloneDX and SPDX. Install mooring[sbom]." in done.stderr
    assert "Traceback" not in done.stderr
