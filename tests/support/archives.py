"""Archives made by hand, as Docker exports the files of an image."""

import io
import tarfile


def image_archive(
    files: dict[str, str],
    *,
    links: dict[str, str] | None = None,
    doubles: dict[str, str] | None = None,
    modes: dict[str, int] | None = None,
) -> bytes:
    """Return an archive of files with their texts, of links with their targets, and of second names of files."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(text.encode())
            member.mode = (modes or {}).get(path, member.mode)
            archive.addfile(member, io.BytesIO(text.encode()))
        for kind, pairs in ((tarfile.SYMTYPE, links or {}), (tarfile.LNKTYPE, doubles or {})):
            for path, target in pairs.items():
                member = tarfile.TarInfo(path)
                member.type, member.linkname = kind, target
                archive.addfile(member)
    return content.getvalue()
