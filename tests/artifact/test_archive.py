"""Archives: the same bytes every time, nothing outside the folder, and no folder from half an archive."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mooring.artifact.archive import ArchiveLimits, DamagedArchiveError, UnsafeArchiveError, extract, pack


def model_folder(base: Path) -> Path:
    folder = base / "folder"
    (folder / "code").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"weights" * 1000)
    (folder / "code/inference.py").write_text("print()", encoding="utf-8")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    made.linkname = target
    return made


def test_packed_folder_comes_back(tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    pack(folder, tmp_path / "model.tar.gz")
    extract(tmp_path / "model.tar.gz", tmp_path / "again")
    assert files(tmp_path / "again") == files(folder)


def test_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        pack(model_folder(tmp_path / name), tmp_path / f"{name}.tar.gz")
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()


def test_zip_is_unpacked_too(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.mar", "w") as zipped:
        zipped.writestr("code/inference.py", "print()")
    extract(tmp_path / "model.mar", tmp_path / "out")
    assert files(tmp_path / "out") == {"code/inference.py": b"print()"}


def test_tar_that_ends_with_a_zip_is_a_tar(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as zipped:
        zipped.writestr("inner", "")
    with tarfile.open(tmp_path / "model.tar", "w") as tar:
        tar.add(tmp_path / "model.pt", "model.pt")
    extract(tmp_path / "model.tar", tmp_path / "out")
    assert files(tmp_path / "out") == {"model.pt": (tmp_path / "model.pt").read_bytes()}


def test_empty_zip_is_a_zip(tmp_path: Path) -> None:
    zipfile.ZipFile(tmp_path / "model.zip", "w").close()
    extract(tmp_path / "model.zip", tmp_path / "out")
    assert files(tmp_path / "out") == {}


@pytest.mark.parametrize(
    "hostile",
    [
        member("../outside"),
        member("a/../../outside"),
        member("/etc/outside"),
        member("a\\..\\outside"),
        member("link", tarfile.SYMTYPE, "/etc/passwd"),
        member("hard", tarfile.LNKTYPE, "../outside"),
        member("pipe", tarfile.FIFOTYPE),
        member("device", tarfile.CHRTYPE),
    ],
    ids=lambda entry: entry.name,
)
def test_hostile_member_is_named_and_nothing_is_unpacked(tmp_path: Path, hostile: tarfile.TarInfo) -> None:
    archive = tar_of(tmp_path / "model.tar.gz", (member("fine"), b"x"), (hostile, b""))
    with pytest.raises(UnsafeArchiveError, match="member") as refused:
        extract(archive, tmp_path / "in/out")
    assert refused.value.member == hostile.name
    assert list((tmp_path / "in").iterdir()) == []
    assert not (tmp_path / "outside").exists()


def test_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("link")
    entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as zipped:
        zipped.writestr(entry, "/etc/passwd")
    with pytest.raises(UnsafeArchiveError, match="is a link"):
        extract(tmp_path / "model.zip", tmp_path / "out")


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        (ArchiveLimits(total_bytes=1000), "limit of 1,000 bytes"),
        (ArchiveLimits(members=2), "limit of 2 members"),
        (ArchiveLimits(ratio=10, ratio_applies_from_bytes=100), "10 times its packed size"),
    ],
    ids=["bytes", "members", "ratio"],
)
def test_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, limits: ArchiveLimits, problem: str) -> None:
    archive = tar_of(tmp_path / "model.tar.gz", *((member(f"{n}"), bytes(4000)) for n in range(3)))
    with pytest.raises(UnsafeArchiveError, match=problem):
        extract(archive, tmp_path / "out", limits)
    assert not (tmp_path / "out").exists()


def test_name_that_comes_twice_is_an_error(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "model.tar.gz", (member("same"), b"1"), (member("same"), b"2"))
    with pytest.raises(DamagedArchiveError, match="'same' cannot be written"):
        extract(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@given(cut=st.floats(0, 0.999))
@example(cut=0.9453125)  # all members are there, and only the checksum is not
@settings(max_examples=15, deadline=None)
def test_truncated_archive_leaves_no_folder(tmp_path_factory: pytest.TempPathFactory, cut: float) -> None:
    base = tmp_path_factory.mktemp("cut")
    pack(model_folder(base), base / "model.tar.gz")
    whole = (base / "model.tar.gz").read_bytes()
    (base / "model.tar.gz").write_bytes(whole[: int(len(whole) * cut)])
    with pytest.raises(DamagedArchiveError, match=r"model\.tar\.gz"):
        extract(base / "model.tar.gz", base / "out")
    assert not (base / "out").exists()


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.tar.gz").write_bytes(b"no archive")
    with pytest.raises(DamagedArchiveError, match="cannot be unpacked"):
        extract(tmp_path / "model.tar.gz", tmp_path / "out")
