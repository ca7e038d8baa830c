"""Every file of an image, as far as two builds can be told apart by it: path, mode, and what it holds."""

import hashlib
import tarfile

from mooring.runner.image import exported

PIECE_BYTES = 1 << 20
SHOWN = 40


def image_files(image: str) -> dict[str, tuple[int, str]]:
    """Return the files of an image in Docker: by its path each one's mode, and its SHA-256 or what else it is."""
    with exported(image) as archive:
        return archive_files(archive)


def archive_files(archive: tarfile.TarFile) -> dict[str, tuple[int, str]]:
    """Return the files of an archive, which is read to its end."""
    files: dict[str, tuple[int, str]] = {}
    for member in archive:
        files[member.name] = (member.mode, _content(archive, member, files))
    return files


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, before: dict[str, tuple[int, str]]) -> str:
    if member.isdir():
        return "folder"
    if member.issym():
        return f"link to {member.linkname}"
    if member.islnk():  # a second name of a file that came before
        return before[member.linkname][1]
    stream = archive.extractfile(member)
    if stream is None:
        return f"device or pipe {member.devmajor}:{member.devminor}"
    digest = hashlib.sha256()
    while piece := stream.read(PIECE_BYTES):
        digest.update(piece)
    return digest.hexdigest()


def differences(first: dict[str, tuple[int, str]], second: dict[str, tuple[int, str]]) -> list[str]:
    """Return in words what differs, sorted by path; nothing where all is the same."""
    found = []
    for path in sorted({*first, *second}):
        if path not in second:
            found.append(f"{path}: only in the first")
        elif path not in first:
            found.append(f"{path}: only in the second")
        elif first[path] != second[path]:
            (mode, content), (other_mode, other_content) = first[path], second[path]
            modes = f"mode {mode:o} and {other_mode:o}" if mode != other_mode else ""
            contents = f"{content[:40]} and {other_content[:40]}" if content != other_content else ""
            found.append(f"{path}: {'; '.join(filter(None, (modes, contents)))}")
    return found[:SHOWN] + ([f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else [])
