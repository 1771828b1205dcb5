"""Where weights come from: the word, the cache, an installed edgel3, and the authors' address."""

import dataclasses
import gzip
import http.server
import importlib
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.networks.small_weights import (
    SMALL,
    assert_equal_bits,
    refusal_of,
)

from edgel3_tflm.files import git_blob_id, sha256_hex
from edgel3_tflm.networks import hdf5
from edgel3_tflm.networks.catalogue import VARIANTS
from edgel3_tflm.networks.sources import cache_directory, load_weights, parse_weights_source
from edgel3_tflm.networks.variants import PublishedFile, Variant
from edgel3_tflm.networks.weights import NetworkWeights


class Server(http.server.ThreadingHTTPServer):
    """Serves ``data`` in the manner that the first part of the path names; records the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.data = b""
        self.requested: list[str] = []

    def base_url(self, way: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{way}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: tests close connections early."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requested.append(self.path)
        way = self.path.split("/")[1]
        data = self.server.data
        if way == "missing":
            self.send_error(404)
            return
        self.send_response(200)
        if way != "endless":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if way == "right":
            self.wfile.write(data)
        elif way == "wrong":
            self.wfile.write(data[:-1] + bytes([data[-1] ^ 1]))
        elif way == "cut":
            self.wfile.write(data[: len(data) // 2])
        elif way == "endless":
            while True:
                self.wfile.write(bytes(65536))

    def log_message(self, *args: Any) -> None:
        """Print nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEL3_TFLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache"


@pytest.fixture
def published_file(small_file: bytes) -> bytes:
    return gzip.compress(small_file, mtime=0)


@pytest.fixture
def published(published_file: bytes) -> Variant:
    """Return the small network with its file as the published one."""
    name = "edgel3_tflm_test_only.h5.gz"
    return dataclasses.replace(SMALL, published=PublishedFile(name, git_blob_id(published_file)))


def file_name(variant: Variant) -> str:
    assert variant.published is not None
    return variant.published.name


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install an edgel3 without weights, whose import raises an error."""
    directory = tmp_path / "site" / "edgel3"
    directory.mkdir(parents=True)
    (directory / "__init__.py").write_text("raise SystemError('imported')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(directory.parent))
    with pytest.raises(SystemError, match="imported"):
        importlib.import_module("edgel3")
    return directory


@pytest.mark.parametrize("word", ["auto", "published", "bundled", "generated"])
def test_a_word_is_no_file(word: str) -> None:
    assert parse_weights_source(word) == word
    assert parse_weights_source(f"./{word}") == Path(word)
    assert parse_weights_source(Path(word)) == Path(word)


@pytest.mark.parametrize("text", ["", "Auto", "auto.h5", "generated/", "w.h5.gz"])
def test_all_other_text_is_a_file(text: str) -> None:
    assert parse_weights_source(text) == Path(text)


def test_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEL3_TFLM_CACHE", "/some/where")
    assert cache_directory() == Path("/some/where")
    monkeypatch.setenv("EDGEL3_TFLM_CACHE", "")
    assert cache_directory().name == "edgel3-tflm"
    monkeypatch.delenv("EDGEL3_TFLM_CACHE")
    assert cache_directory().name == "edgel3-tflm"


def test_network_without_published_weights_asks_for_a_file(cache: Path) -> None:
    message = refusal_of(lambda: load_weights(VARIANTS["l3-dense"]))
    assert message.startswith("l3-dense: no weights are published for this network")
    assert "--weights FILE" in message
    assert not cache.exists()


def test_cache_comes_before_package_and_download(
    cache: Path,
    package: Path,
    server: Server,
    published: Variant,
    published_file: bytes,
    small: NetworkWeights,
) -> None:
    cache.mkdir()
    (cache / file_name(published)).write_bytes(published_file)
    (package / file_name(published).removesuffix(".gz")).write_bytes(b"not read")
    weights = load_weights(published, base_url=server.base_url("right"))
    assert weights.provenance.kind == "published"
    assert weights.provenance.sha256 == sha256_hex(published_file)
    assert_equal_bits(weights, small)
    assert server.requested == []


def test_cached_file_of_other_bytes_is_refused_with_both_digests(
    cache: Path, server: Server, published: Variant, published_file: bytes
) -> None:
    cache.mkdir()
    other = published_file[:-1] + b"\xff"
    (cache / file_name(published)).write_bytes(other)
    message = refusal_of(lambda: load_weights(published, base_url=server.base_url("right")))
    assert message.startswith(f"{cache / file_name(published)}: ")
    assert git_blob_id(published_file) in message
    assert git_blob_id(other) in message
    assert server.requested == []


def test_installed_package_comes_before_download_and_is_not_imported(
    cache: Path,
    package: Path,
    server: Server,
    published: Variant,
    small: NetworkWeights,
    small_file: bytes,
) -> None:
    unpacked = file_name(published).removesuffix(".gz")
    (package / unpacked).write_bytes(small_file)
    weights = load_weights(published, base_url=server.base_url("right"))
    assert weights.provenance.kind == "package"
    assert weights.provenance.sha256 == sha256_hex(small_file)
    assert "digest unknown" in weights.provenance.description
    assert_equal_bits(weights, small)
    assert "edgel3" not in sys.modules
    assert server.requested == []
    assert not cache.exists()


def test_damaged_file_of_an_installed_package_is_refused(
    cache: Path, package: Path, server: Server, published: Variant, small_file: bytes
) -> None:
    unpacked = package / file_name(published).removesuffix(".gz")
    unpacked.write_bytes(small_file[:-1])
    message = refusal_of(lambda: load_weights(published, base_url=server.base_url("right")))
    assert message.startswith(f"{unpacked}: ")
    assert server.requested == []
    assert not cache.exists()


def test_package_without_the_file_leaves_it_to_the_download(
    cache: Path, package: Path, server: Server, published: Variant, published_file: bytes
) -> None:
    assert package.is_dir()
    server.data = published_file
    weights = load_weights(published, base_url=server.base_url("right"))
    assert weights.provenance.kind == "published"
    assert cache.is_dir()


def test_download_lands_in_the_cache_and_is_not_repeated(
    cache: Path,
    server: Server,
    published: Variant,
    published_file: bytes,
    small: NetworkWeights,
) -> None:
    server.data = published_file
    for _ in range(2):
        weights = load_weights(published, base_url=server.base_url("right"))
        assert weights.provenance.kind == "published"
        assert_equal_bits(weights, small)
    assert server.requested == [f"/right/{file_name(published)}"]
    assert [path.name for path in cache.iterdir()] == [file_name(published)]
    assert (cache / file_name(published)).read_bytes() == published_file


def assert_fetch_refused(cache: Path, published: Variant, base_url: str) -> str:
    message = refusal_of(lambda: load_weights(published, base_url=base_url))
    assert base_url + file_name(published) in message
    assert list(cache.iterdir()) == []
    return message


def test_download_of_other_bytes_is_refused_with_both_digests(
    cache: Path, server: Server, published: Variant, published_file: bytes
) -> None:
    server.data = published_file
    message = assert_fetch_refused(cache, published, server.base_url("wrong"))
    other = published_file[:-1] + bytes([published_file[-1] ^ 1])
    assert git_blob_id(published_file) in message
    assert git_blob_id(other) in message


@pytest.mark.parametrize("way", ["missing", "cut"])
def test_failed_download_is_refused_with_what_to_do(
    cache: Path, server: Server, published: Variant, published_file: bytes, way: str
) -> None:
    server.data = published_file
    message = assert_fetch_refused(cache, published, server.base_url(way))
    assert "--weights FILE" in message
    assert str(cache) in message


def test_refused_connection_is_refused_with_what_to_do(cache: Path, published: Variant) -> None:
    with socket.socket() as bound:  # bound but not listening: connections to it are refused
        bound.bind(("127.0.0.1", 0))
        base_url = f"http://127.0.0.1:{bound.getsockname()[1]}/"
        message = assert_fetch_refused(cache, published, base_url)
    assert "--weights FILE" in message


def test_download_that_never_ends_is_refused(
    cache: Path, server: Server, published: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5, "MAX_HDF5_BYTES", 1_000_000)
    assert_fetch_refused(cache, published, server.base_url("endless"))


def test_cache_that_cannot_be_written_is_one_line(
    cache: Path, server: Server, published: Variant, published_file: bytes
) -> None:
    server.data = published_file
    cache.write_bytes(b"")  # a file in the directory's place
    message = refusal_of(lambda: load_weights(published, base_url=server.base_url("right")))
    assert "--weights FILE" in message
    assert cache.read_bytes() == b""


def test_download_that_cannot_be_moved_into_its_place_leaves_nothing(
    cache: Path, server: Server, published: Variant, published_file: bytes
) -> None:
    server.data = published_file
    (cache / file_name(published)).mkdir(parents=True)
    message = refusal_of(lambda: load_weights(published, base_url=server.base_url("right")))
    assert "--weights FILE" in message
    assert [path.name for path in cache.iterdir()] == [file_name(published)]


def test_cache_with_a_name_the_system_refuses_is_one_line(
    server: Server, published: Variant, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGEL3_TFLM_CACHE", str(tmp_path / ("x" * 300)))
    message = refusal_of(lambda: load_weights(published, base_url=server.base_url("right")))
    assert "--weights FILE" in message
