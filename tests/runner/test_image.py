"""The files of an image, from a stand-in for the docker command that exports archives made by hand."""

import tarfile
from contextlib import suppress

import pytest
from archives import image_archive
from docker_double import DockerDouble

from mooring.runner.docker import DockerError
from mooring.runner.image import exported, inspect_image

FACTS = {"Id": "sha256:1", "Created": "2026-01-01T00:00:00Z", "Os": "linux", "Architecture": "amd64", "Size": 9}


def names(image: str) -> list[str]:
    with exported(image) as archive:
        return [member.name for member in archive]


def made_and_removed(docker: DockerDouble) -> tuple[list[str], list[str]]:
    made = [words[words.index("--name") + 1] for words in docker.words if words[0] == "create"]
    return made, [words[-1] for words in docker.words if words[0] == "rm"]


def test_files_come_from_a_container_that_is_never_started_and_goes_again(docker: DockerDouble) -> None:
    docker.hold("flowers:3", FACTS, image_archive({"a": "1", "b/c": "2"}))
    assert names("flowers:3") == ["a", "b/c"]
    made, removed = made_and_removed(docker)
    assert len(made) == 1
    assert made == removed
    assert {words[0] for words in docker.words} == {"create", "export", "rm"}


@pytest.mark.parametrize("archive", [b"", b"no archive at all" * 100, image_archive({"a": "1" * 9000})[:2000]])
def test_archive_that_is_damaged_or_ends_early_is_an_error(docker: DockerDouble, archive: bytes) -> None:
    docker.hold("flowers:3", FACTS, archive)
    with pytest.raises(DockerError, match=r"`docker export` ended with 0: \w+"):
        names("flowers:3")
    made, removed = made_and_removed(docker)
    assert made == removed


def test_what_docker_says_when_it_fails_is_told(docker: DockerDouble) -> None:
    docker.set("flowers:3", export="Error response from daemon: no space left on device")
    with pytest.raises(DockerError, match=r"no space left on device\. Free some room"):
        names("flowers:3")
    made, removed = made_and_removed(docker)
    assert made == removed
    with pytest.raises(DockerError, match="No such image: weeds"):
        names("weeds")


def test_container_goes_also_when_its_reader_gives_up(docker: DockerDouble) -> None:
    """The archive is larger than a pipe holds, so Docker is still writing then."""
    docker.hold("flowers:3", FACTS, image_archive({f"{number}": "1" * 100_000 for number in range(20)}))
    with suppress(ZeroDivisionError), exported("flowers:3") as archive:
        assert isinstance(archive.next(), tarfile.TarInfo)
        raise ZeroDivisionError
    made, removed = made_and_removed(docker)
    assert made == removed


def test_facts_are_read_whatever_docker_says_before_them(docker: DockerDouble) -> None:
    docker.hold("flowers:3", FACTS | {"RepoDigests": None, "Config": {"Labels": {"a": "b"}}}, b"")
    facts = inspect_image("flowers:3")
    assert (facts.name, facts.id, facts.architecture, facts.size_bytes) == ("flowers:3", "sha256:1", "amd64", 9)
    assert facts.labels == {"a": "b"}
    assert facts.digests == ()
