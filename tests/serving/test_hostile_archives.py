"""Model files that reach outside of their folder, or grow past every measure, as a server meets them."""

import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from models import scale_model
from onnx import TensorProto, helper
from servers import RunningServer, Servers

SECRET = np.array([1.5, 2.5, 3.5], np.float32)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("outside") / "models"
    root.mkdir()
    (root.parent / "secret").write_bytes(SECRET.tobytes())
    (root.parent / "secret.onnx").write_bytes((scale_model(root / "good") / "model.onnx").read_bytes())
    return root


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server unpacks."""
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def server(start_server: Servers, root: Path, scratch: Path) -> RunningServer:
    return start_server(root, variables={"TMPDIR": str(scratch)})


# --- archives ---------------------------------------------------------------------------------------------------------


def tar(path: Path, name: str, kind: bytes = tarfile.REGTYPE, target: str = "", content: bytes = b"") -> Path:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.size = kind, target, len(content)
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(entry, io.BytesIO(content))
    return path


def zip_bomb(path: Path) -> Path:
    """Many names for the same packed bytes: each member overlaps the ones before it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0", bytes(10_000_000))
        entry = archive.infolist()[0]
        for number in range(1, 200):
            another = zipfile.ZipInfo(str(number))
            for field in ("compress_type", "CRC", "compress_size", "file_size", "header_offset"):
                setattr(another, field, getattr(entry, field))
            archive.filelist.append(another)
            archive.NameToInfo[another.filename] = another
        archive._didModify = True  # type: ignore[attr-defined]
    return path


def header_bomb(path: Path) -> Path:
    """A header of 200 MB, which tarfile would read in one piece: packed, it is 200 KB."""
    entry = tarfile.TarInfo("any")
    entry.type, entry.size = tarfile.XHDTYPE, 200 << 20
    with gzip.open(path, "wb") as stream:
        stream.write(entry.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(200):
            stream.write(bytes(1 << 20))
    return path


def header_chain(path: Path) -> Path:
    """Headers about headers, each of which tarfile reads inside of the reading of the one before."""
    entry = tarfile.TarInfo("any")
    entry.type, entry.size = tarfile.XHDTYPE, 0
    path.write_bytes(entry.tobuf(tarfile.USTAR_FORMAT) * 5000 + bytes(10240))
    return path


def encrypted(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.onnx", b"anything")
    content = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        place = content.index(magic) + offset
        flags = struct.unpack_from("<H", content, place)[0]
        struct.pack_into("<H", content, place, flags | 1)
    path.write_bytes(content)
    return path


def two_of_a_name(path: Path, first: str, second: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(first, b"1")
        archive.writestr(second, b"2")
    return path


def nothing(path: Path) -> Path:
    path.write_bytes(b"PK\3\4 and nothing")
    return path


HOSTILE: dict[str, Callable[[Path], Path]] = {
    "climbs": lambda path: tar(path, "../outside"),
    "climbs inside": lambda path: tar(path, "a/b/../../../outside"),
    "absolute": lambda path: tar(path, "/tmp/outside"),
    "links": lambda path: tar(path, "model.onnx", tarfile.SYMTYPE, "/etc/passwd"),
    "links hard": lambda path: tar(path, "model.onnx", tarfile.LNKTYPE, "../secret"),
    "device": lambda path: tar(path, "model.onnx", tarfile.CHRTYPE),
    "pipe": lambda path: tar(path, "model.onnx", tarfile.FIFOTYPE),
    "bomb": zip_bomb,
    "bomb of headers": header_bomb,
    "chain of headers": header_chain,
    "encrypted": encrypted,
    "file and folder": lambda path: two_of_a_name(path, "a", "a/b"),
    "name too long": lambda path: two_of_a_name(path, "a", "b" * 5000),
    "no archive": nothing,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archive_is_refused_in_words_and_leaves_nothing(
    server: RunningServer, root: Path, scratch: Path, kind: str
) -> None:
    archive = HOSTILE[kind](root / f"{kind.replace(' ', '-')}.zip")
    before = {path.name for path in root.parent.iterdir()}
    answer = server.load("hostile", archive)
    assert (answer.status_code, answer.json()["type"]) == (400, "InvalidModelException"), answer.text
    assert archive.name in answer.json()["message"]
    assert str(root) not in answer.text
    assert {path.name for path in root.parent.iterdir()} == before
    assert not Path("/tmp/outside").exists()
    assert list(scratch.glob("mooring-live-*/unpacked/*")) == []
    assert server.load("good", root / "good").status_code == 200
    assert server.client.delete("/models/good").status_code == 200


# --- ONNX -------------------------------------------------------------------------------------------------------------


def model_with_weights_at(folder: Path, location: str) -> Path:
    """Write a model that adds three floats which lie in another file, and so would tell what is in it."""
    folder.mkdir()
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "12")):
        entry = weights.external_data.add()
        entry.key, entry.value = key, value
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "leak", [x], [y], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder


@pytest.mark.parametrize(
    ("name", "location", "link"),
    [
        ("climbs", "../../secret", ""),
        ("climbs-later", "../good/../../secret", ""),
        ("absolute", "{outside}/secret", ""),
        ("climbs-far", "../../../../../../../../../../etc/passwd", ""),
        ("system", "/etc/passwd", ""),
        ("link-to-file", "weights.bin", "weights.bin"),
        ("link-to-folder", "below/secret", "below"),
    ],
)
def test_weights_outside_of_the_folder_are_not_read(
    server: RunningServer, root: Path, name: str, location: str, link: str
) -> None:
    """Whatever leads there: a path that climbs, an absolute one, a link to a file, a link to a folder."""
    outside = root.parent
    location = location.replace("{outside}", str(outside))
    folder = model_with_weights_at(root / name, location)
    if link:
        (folder / link).symlink_to(outside / "secret" if link == location else outside)
    answer = server.load("leak", folder)
    assert answer.status_code in (400, 500)
    assert server.client.get("/models/leak").json().get("status") != "ready"
    assert str(outside) not in answer.text
    assert "root:" not in answer.text
    assert "1.5" not in answer.text


def test_weights_inside_of_the_folder_are_read(server: RunningServer, root: Path) -> None:
    folder = model_with_weights_at(root / "inside", "weights.bin")
    (folder / "weights.bin").write_bytes(SECRET.tobytes())
    assert server.load("inside", folder).status_code == 200
    assert server.invoke("inside", [[0, 0, 0]]).json() == [[1.5, 2.5, 3.5]]


def test_library_of_operators_beside_a_model_is_not_opened(server: RunningServer, root: Path) -> None:
    """A custom operator is a shared library, which is code: a model that is only data brings none."""
    folder = root / "operators"
    folder.mkdir()
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Own", ["x"], ["y"], domain="mine")], "own", [x], [y])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    entry = model.metadata_props.add()
    entry.key, entry.value = "custom_ops_library", str(folder / "mine.so")
    onnx.save(model, folder / "model.onnx")
    (folder / "mine.so").write_bytes(b"\x7fELF of no kind")
    answer = server.load("operators", folder)
    assert answer.status_code == 500
    assert "mine:Own" in answer.json()["message"]
    assert str(root) not in answer.text
    assert "mine.so" not in answer.text


# --- links ------------------------------------------------------------------------------------------------------------


def test_link_among_a_models_files_that_leads_out_is_refused(server: RunningServer, root: Path) -> None:
    folder = root / "linked"
    folder.mkdir()
    (folder / "model.onnx").symlink_to(root.parent / "secret.onnx")
    answer = server.load("linked", folder)
    assert (answer.status_code, answer.json()["type"]) == (400, "BadRequestException")
    assert "model.onnx" in answer.json()["message"]
    assert str(root) not in answer.text


def test_link_that_stays_below_the_root_is_followed(server: RunningServer, root: Path) -> None:
    """Caches of downloaded models are made of such links."""
    folder = root / "snapshot"
    folder.mkdir()
    (folder / "model.onnx").symlink_to(root / "good/model.onnx")
    assert server.load("snapshot", folder).status_code == 200
    (root / "alias").symlink_to(folder)
    assert server.load("alias", root / "alias").status_code == 200


def test_repository_whose_entry_leads_out_says_so_without_its_path(start_server: Servers, root: Path) -> None:
    (root / "way-out").symlink_to(root.parent)
    server = start_server(root, "repository", eviction="reuse")
    for answer in (server.client.post("/v2/repository/models/way-out/load"), server.invoke("way-out", [])):
        assert answer.status_code == 400
        assert "'way-out'" in answer.text
        assert str(root.parent) not in answer.text
    assert server.invoke("good", [[1, 2, 3]]).json() == [[2, 4, 6]]
    assert server.invoke("x" * 300, []).status_code == 404
