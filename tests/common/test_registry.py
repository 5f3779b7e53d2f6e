"""Registries take members from this process and from installed packages."""

import sys

import pytest

from harness.common.registry import Registry


def install(tmp_path, monkeypatch, *, value, name="shout"):
    (tmp_path / "toy_plugin.py").write_text("def shout(text):\n    return text.upper()\n")
    info = tmp_path / "toy_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[reprogramming_harness.toys]\n{name} = {value}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "toy_plugin", raising=False)


def test_an_installed_package_adds_a_member(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, value="toy_plugin:shout")
    toys = Registry("toys", {"whisper": str.lower})
    assert list(toys) == ["whisper", "shout"]
    assert toys["shout"]("hello") == "HELLO"


@pytest.mark.parametrize(
    ("name", "value", "keyword"),
    [("shout", "toy_plugin:absent", "toy-plugin"), ("whisper", "toy_plugin:shout", "in use")],
)
def test_a_bad_entry_point_is_named(tmp_path, monkeypatch, name, value, keyword):
    install(tmp_path, monkeypatch, value=value, name=name)
    toys = Registry("toys", {"whisper": str.lower})
    for _ in range(2):  # a later look-up, such as that of the next trial, does not go on without the member
        with pytest.raises(ValueError, match=rf"reprogramming_harness.toys: .*{name}.*{keyword}|{name}.*{keyword}"):
            len(toys)


def test_a_member_can_be_added_and_removed():
    toys = Registry("toys", {"whisper": str.lower})
    toys.add("title", str.title)
    assert toys["title"]("a b") == "A B"
    toys.remove("title")
    with pytest.raises(KeyError):
        toys["title"]


@pytest.mark.parametrize(
    ("name", "keyword"), [("Top1% rate", "lower-case"), ("a/b", "lower-case"), ("", "lower-case"), ("volume", "in use")]
)
def test_a_name_that_records_cannot_hold_is_refused(name, keyword):
    toys = Registry("toys", {"whisper": str.lower}, reserved=("volume",))
    with pytest.raises(ValueError, match=keyword):
        toys.add(name, str.title)
