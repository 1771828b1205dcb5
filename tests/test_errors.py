"""Hints that say how to install an extra."""

import json
import shlex
from importlib import metadata

import pytest

from edgel3_tflm.errors import install_hint


def installed_from(monkeypatch: pytest.MonkeyPatch, direct_url: dict[str, object] | None) -> None:
    class Installed:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return None if direct_url is None else json.dumps(direct_url)

    monkeypatch.setattr(metadata, "distribution", lambda _: Installed())


@pytest.mark.parametrize(
    ("direct_url", "options", "what"),
    [
        (None, [], "edgel3-tflm[convert]"),
        ({"url": "file:///src/it", "dir_info": {}}, [], "/src/it[convert]"),
        (
            {"url": "file:///my%20dir", "dir_info": {}, "subdirectory": "a"},
            [],
            "/my dir/a[convert]",
        ),
        ({"url": "file:///it's", "dir_info": {}}, [], "/it's[convert]"),
        ({"url": "file:///src", "dir_info": {"editable": True}}, ["-e"], "/src[convert]"),
        ({"url": "file:///a/x-1.whl", "archive_info": {}}, [], "/a/x-1.whl[convert]"),
        (
            {"url": "https://a.b/x-1.tar.gz", "archive_info": {"hash": "sha256=0"}},
            [],
            "edgel3-tflm[convert] @ https://a.b/x-1.tar.gz",
        ),
        (
            {
                "url": "https://a.b/x.git",
                "vcs_info": {"vcs": "git", "commit_id": "c0ffee", "requested_revision": "v1"},
                "subdirectory": "sub",
            },
            [],
            "edgel3-tflm[convert] @ git+https://a.b/x.git@c0ffee#subdirectory=sub",
        ),
        ({"url": "file:///src/it", "vcs_info": {}}, [], "edgel3-tflm[convert]"),
        ({"dir_info": {}}, [], "edgel3-tflm[convert]"),
    ],
)
def test_an_extra_comes_from_where_the_package_came_from(
    direct_url: dict[str, object] | None,
    options: list[str],
    what: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed_from(monkeypatch, direct_url)
    assert shlex.split(install_hint("convert")) == ["pip", "install", *options, what]


def test_without_an_extra_the_package_itself_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    installed_from(monkeypatch, {"url": "file:///src/it", "dir_info": {}})
    assert install_hint() == "pip install /src/it"
    assert install_hint(options="--no-deps") == "pip install --no-deps /src/it"


def test_a_source_tree_that_was_never_installed_is_named_by_the_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    assert install_hint("report") == "pip install 'edgel3-tflm[report]'"
