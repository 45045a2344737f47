from __future__ import annotations

from pathlib import Path

from vqcodec.files import files_below


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_links_lead_to_files_and_loops_end(tmp_path: Path) -> None:
    elsewhere = touch(tmp_path / "disk" / "p225" / "deep" / "a.WAV").parents[1]
    touch(elsewhere / "notes.txt")
    corpus = tmp_path / "corpus"
    touch(corpus / "p226" / "b.wav")
    touch(corpus / ".trash" / "c.wav")
    touch(corpus / "p226" / "._b.wav")
    (corpus / "p225").symlink_to(elsewhere)
    (corpus / "p227").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(corpus)
    (corpus / "dangling.wav").symlink_to(tmp_path / "nothing.wav")
    (corpus / "c.wav").symlink_to(corpus / "p226" / "b.wav")
    found = [path.relative_to(corpus).as_posix() for path in files_below(corpus, {".wav"})]
    assert found == ["c.wav", "p225/deep/a.WAV", "p226/b.wav"]
