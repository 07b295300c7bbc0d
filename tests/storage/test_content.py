"""The identity of a file or a folder follows its content."""

from __future__ import annotations

from pathlib import Path

from deblend_batch import storage


def test_identity_follows_the_content(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"x" * 10)
    two.write_bytes(b"x" * 10)
    assert storage.identity(str(one)) == storage.identity(str(two))
    two.write_bytes(b"x" * 9 + b"y")
    assert storage.identity(str(one)) != storage.identity(str(two))
    for name in ("a", "b"):
        (tmp_path / "folder" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(name.encode())
    before = storage.identity(str(tmp_path / "folder"))
    (tmp_path / "folder" / "b").write_bytes(b"c")
    assert storage.identity(str(tmp_path / "folder")) != before
