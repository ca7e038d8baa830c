"""How two builds are told apart, on archives made by hand; no engine takes part."""

import hashlib
import io
import tarfile

from archives import image_archive
from image_files import archive_files, differences


def files_of(content: bytes) -> dict[str, tuple[int, str]]:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r|") as archive:
        return archive_files(archive)


def test_every_file_is_listed_with_mode_and_content() -> None:
    made = image_archive({"bin/a": "text"}, links={"lib": "usr/lib"}, doubles={"bin/b": "bin/a"})
    digest = hashlib.sha256(b"text").hexdigest()
    assert files_of(made) == {"bin/a": (0o644, digest), "bin/b": (0o644, digest), "lib": (0o644, "link to usr/lib")}


def test_folders_pipes_and_devices_are_listed_as_what_they_are() -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for path, kind in (("dev", tarfile.DIRTYPE), ("dev/pipe", tarfile.FIFOTYPE), ("dev/null", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(path)
            member.type, member.mode = kind, 0o755
            archive.addfile(member)
    assert files_of(content.getvalue()) == {
        "dev": (0o755, "folder"),
        "dev/pipe": (0o755, "device or pipe 0:0"),
        "dev/null": (0o755, "device or pipe 0:0"),
    }


def test_same_files_do_not_differ_whatever_their_order() -> None:
    one = files_of(image_archive({"a": "1", "b": "2"}))
    other = files_of(image_archive({"b": "2", "a": "1"}))
    assert differences(one, other) == []


def test_each_difference_is_told() -> None:
    first = {"gone": (0o644, "1"), "mode": (0o644, "1"), "text": (0o644, "1"), "same": (0o644, "1")}
    second = {"new": (0o644, "1"), "mode": (0o755, "1"), "text": (0o644, "2"), "same": (0o644, "1")}
    assert differences(first, second) == [
        "gone: only in the first",
        "mode: mode 644 and 755",
        "new: only in the second",
        "text: 1 and 2",
    ]


def test_many_differences_are_counted() -> None:
    many = {f"{number:03}": (0o644, "1") for number in range(100)}
    assert differences(many, {})[-1] == "and 60 more"
