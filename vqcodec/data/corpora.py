"""Corpora as they lie on disk, as lists of utterances: published ones, and a folder of speakers.

Lists are sorted by name. Where a corpus does not say what is for what, about 2 % of the utterances
of a speaker go to ``valid`` and 2 % to ``test``, chosen by a hash of the name.
"""

from __future__ import annotations

import contextlib
import csv
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vqcodec.audio.recording import AudioSource
from vqcodec.errors import DataError
from vqcodec.extras import library
from vqcodec.files import AUDIO_SUFFIXES, files_below

SPLITS = ("train", "valid", "test", "test_unseen")

_MANIFEST_COLUMNS = ("path", "speaker", "split")
_SEXES = {"f": "female", "m": "male"}
_MIN_UTTERANCES_TO_SPLIT = 10
_VCTK_RECORDINGS = ("wav48", "wav48_silence_trimmed")
_LIBRISPEECH_SPLITS = {"train": "train", "dev": "valid", "test": "test_unseen"}
_LIBRISPEECH_DOWNLOAD = "train-clean-100"


@dataclass(frozen=True)
class Utterance:
    """One recording of a corpus.

    Attributes:
        path: The audio file.
        name: Identifier without suffix, unique in the corpus, such as ``p225/p225_001``.
        speaker: Name of the voice.
        split: One of `SPLITS`; ``test`` holds unseen clips of speakers in ``train``,
            ``test_unseen`` speakers who are nowhere else.
        text: What is said, or an empty string where the corpus does not tell.
        language: Of the text, a code of ISO 639-1.
        sex: Of the speaker, ``female`` or ``male``, or an empty string where the corpus does not
            tell.
        sound: Opens what is not a file by itself, for `audio.open_recording`; None of a file.
    """

    path: Path
    name: str
    speaker: str
    split: str
    text: str
    language: str = "en"
    sex: str = ""
    sound: Callable[[], AudioSource] | None = None


def utterances(root: str | Path) -> list[Utterance]:
    """List a corpus of any of the layouts: what a model is judged by is split as its training was.

    It is listed by `folder` if it has a ``manifest.csv``, and else by the first of `CORPORA` that
    finds recordings; errors are those of `folder`.
    """
    if not (Path(root) / "manifest.csv").is_file():
        for known in CORPORA.values():
            with contextlib.suppress(DataError):
                return known(root)
    return folder(root)


def vctk(root: str | Path) -> list[Utterance]:
    """List VCTK 0.80 or 0.92 (Yamagishi, Veaux, MacDonald, CSTR Edinburgh).

    The root is the corpus folder (with ``txt`` in it), its parent, or its folder of recordings. Of
    0.92's two microphones mic2 is taken, and mic1 where mic2 lacks (p280, parts of p362). Both
    releases are split alike. ``text`` is empty where there is no text (p315). Raises DataError if
    no recording lies where VCTK has them.
    """
    root = Path(root)
    if root.name in _VCTK_RECORDINGS:
        root = root.parent
    for corpus in (root, root / "VCTK-Corpus-0.92", root / "VCTK-Corpus"):
        if recordings := _vctk_recordings(corpus):
            break
    else:
        raise DataError(
            f"{root}: no VCTK recording found; expected wav48/p225/p225_001.wav or "
            "wav48_silence_trimmed/p225/p225_001_mic2.flac in it or in its VCTK-Corpus folder"
        )
    counts = Counter(path.parent.name for path in recordings.values())

    def utterance(name: str, path: Path) -> Utterance:
        speaker = path.parent.name
        split = hashed_split(name, counts[speaker])
        return Utterance(path, name, speaker, split, _read_text(corpus / "txt" / f"{name}.txt"))

    return _sorted_by_name(utterance(name, path) for name, path in recordings.items())


def librispeech(root: str | Path) -> list[Utterance]:
    """List LibriSpeech (Panayotov et al. 2015), as many of its subsets as are there.

    The root is the folder ``LibriSpeech``, its parent, or one of its subsets. ``dev-*`` becomes
    ``valid`` and ``test-*`` becomes ``test_unseen``; ``train-*`` is split by names. Speakers are
    named ``ls19`` and so on. Raises DataError if no recording lies where LibriSpeech has them.
    """
    root = Path(root)
    paths = _in_subsets(root, [root, root / "LibriSpeech"], ".flac")
    if not paths:
        raise DataError(
            f"{root}: no LibriSpeech recording found; "
            "expected LibriSpeech/train-clean-100/19/198/19-198-0001.flac and the like"
        )
    texts = {folder: _librispeech_texts(folder) for folder in {path.parent for path in paths}}
    return _of_subsets(paths, lambda path: texts[path.parent].get(path.stem, ""))


def libritts(root: str | Path) -> list[Utterance]:
    """List LibriTTS or LibriTTS-R (Zen et al. 2019; Koizumi et al. 2023), as `librispeech`.

    ``text`` is the normalised one.
    """
    root = Path(root)
    paths = _in_subsets(root, [root, *root.glob("LibriTTS*")], ".wav")
    if not paths:
        raise DataError(
            f"{root}: no LibriTTS recording found; "
            "expected LibriTTS/train-clean-100/19/198/19_198_000000_000002.wav and the like"
        )
    return _of_subsets(paths, lambda p: _read_text(p.with_name(f"{p.stem}.normalized.txt")))


def ljspeech(root: str | Path) -> list[Utterance]:
    """List LJSpeech 1.1 (Ito and Johnson 2017), whose one speaker is called ``lj``.

    The root is the folder ``LJSpeech-1.1`` or its parent. Raises DataError if no ``metadata.csv``
    and ``wavs`` lie there, or a recording is not there.
    """
    corpora = (Path(root), Path(root) / "LJSpeech-1.1")
    found = [one for one in corpora if (one / "metadata.csv").is_file() and (one / "wavs").is_dir()]
    if not found:
        raise DataError(f"{root}: no LJSpeech found; expected LJSpeech-1.1/metadata.csv and wavs/")
    lines = _read_text(found[0] / "metadata.csv").splitlines()
    # Names, texts, and texts with words for numbers.
    rows = [line.split("|") for line in lines if line.strip()]

    def utterance(row: list[str]) -> Utterance:
        path = found[0] / "wavs" / f"{row[0]}.wav"
        if not path.is_file():
            raise DataError(f"{path}: is listed in metadata.csv, but not there; unpack it anew")
        name = f"lj/{row[0]}"
        return Utterance(path, name, "lj", hashed_split(name, len(rows)), row[-1], sex="female")

    return _sorted_by_name(map(utterance, rows))


def common_voice(root: str | Path) -> list[Utterance]:
    """List one language of Common Voice (Ardila et al. 2020): what its lists name and is there.

    The root is the folder of the language, such as ``cv-corpus-21.0-2025-03-14/cy``. ``dev.tsv``
    becomes ``valid`` and ``test.tsv`` becomes ``test_unseen``; their speakers are others than those
    of ``train.tsv``. Speakers are named by the first digits of their hashes. Raises DataError if no
    list lies there, or nothing of what they name.
    """
    root = Path(root)
    found: list[Utterance] = []
    for subset, split in {"train": "train", "dev": "valid", "test": "test_unseen"}.items():
        for line in csv.DictReader(
            _read_text(root / f"{subset}.tsv").splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE
        ):
            path, speaker = root / "clips" / line["path"], f"cv{line['client_id'][:12]}"
            if path.is_file():
                sex, language = _SEXES.get((line.get("gender") or "")[:1], ""), root.resolve().name
                name = f"{speaker}/{path.stem}"
                found.append(Utterance(path, name, speaker, split, line["sentence"], language, sex))
    if not found:
        raise DataError(
            f"{root}: no Common Voice found; expected the folder of a language, with train.tsv "
            "and clips/"
        )
    return _sorted_by_name(found)


def folder(root: str | Path) -> list[Utterance]:
    """List a folder that has one folder of recordings for each speaker, or a ``manifest.csv``.

    Without a manifest, every recording at any depth below ``root/<speaker>/`` is an utterance of
    that speaker. ``root/manifest.csv`` decides where it exists: its columns are ``path`` (relative
    to root), ``speaker``, ``split`` and, if wanted, ``text``, ``language`` (ISO 639-1, English
    without it) and ``sex`` (of which the first letter counts); others are ignored. The name is the
    path below root without its suffix.

    Raises:
        DataError: No recording is found, two differ in their suffix alone, or the manifest lacks
            a column or a value, names an unknown split or a file that is not there.
    """
    root = Path(root)
    manifest = root / "manifest.csv"
    if manifest.is_file():
        return _sorted_by_name(_manifest_utterances(manifest))
    paths = [path for path in files_below(root, AUDIO_SUFFIXES) if path.parent != root]
    if not paths:
        name = root.resolve().name
        raise DataError(
            f"{root}: no recording found; expected {name}/SPEAKER/NAME.wav (or .flac, .ogg, "
            f".opus, .mp3), or {name}/manifest.csv with columns path,speaker,split"
        )
    counts = Counter(path.relative_to(root).parts[0] for path in paths)

    def utterance(path: Path) -> Utterance:
        name = path.relative_to(root).with_suffix("").as_posix()
        speaker = name.split("/")[0]
        return Utterance(path, name, speaker, hashed_split(name, counts[speaker]), "")

    return _sorted_by_name(map(utterance, paths))


CORPORA: dict[str, Callable[[str | Path], list[Utterance]]] = {
    "vctk": vctk,
    "librispeech": librispeech,
    "libritts": libritts,
    "ljspeech": ljspeech,
    "commonvoice": common_voice,
    "folder": folder,
}


def download(corpus: str, root: str | Path) -> None:
    """Download ``vctk`` 0.92 (11 GB) or ``librispeech`` train-clean-100 (6 GB), unless it is there.

    It is unpacked into `root`, to be given to `vctk` or `librispeech` afterwards. Raises DataError
    for another corpus, or if the download fails.
    """
    if corpus not in ("vctk", "librispeech"):
        raise DataError(f"{corpus}: nothing to download; only vctk and librispeech can be")
    datasets = library("torchaudio.datasets")

    try:
        Path(root).mkdir(parents=True, exist_ok=True)
        if corpus == "vctk":
            datasets.VCTK_092(str(root), download=True)
        else:
            datasets.LIBRISPEECH(str(root), url=_LIBRISPEECH_DOWNLOAD, download=True)
    except (OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{root}: the download of {corpus} failed ({reason}); "
            "try again, or unpack the corpus there by hand"
        ) from error


def _vctk_recordings(corpus: Path) -> dict[str, Path]:
    recordings = {
        f"{path.parent.name}/{path.stem}": path for path in corpus.glob("wav48/*/[!.]*.wav")
    }
    # mic2 comes after mic1 and so takes its place.
    for microphone in ("_mic1", "_mic2"):
        for path in corpus.glob(f"wav48_silence_trimmed/*/[!.]*{microphone}.flac"):
            recordings[f"{path.parent.name}/{path.stem.removesuffix(microphone)}"] = path
    return recordings


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""


def _in_subsets(root: Path, corpora: Iterable[Path], suffix: str) -> list[Path]:
    """Recordings at SUBSET/SPEAKER/CHAPTER of corpora, of which `root` may be a subset itself."""
    is_subset = root.name.partition("-")[0] in _LIBRISPEECH_SPLITS
    return [
        path
        for corpus in ([root.parent] if is_subset else corpora)
        for subset in _LIBRISPEECH_SPLITS
        for path in corpus.glob(f"{subset}-*/*/*/[!.]*{suffix}")
        if root in path.parents
    ]


def _of_subsets(paths: list[Path], text_of: Callable[[Path], str]) -> list[Utterance]:
    """What `_in_subsets` found: speakers and splits follow from where it lies."""
    counts = Counter(path.parts[-3] for path in paths)

    def utterance(path: Path) -> Utterance:
        speaker = f"ls{path.parts[-3]}"
        name = f"{speaker}/{path.stem}"
        split = _LIBRISPEECH_SPLITS[path.parts[-4].split("-")[0]]
        if split == "train":
            split = hashed_split(name, counts[path.parts[-3]])
        return Utterance(path, name, speaker, split, text_of(path))

    return _sorted_by_name(map(utterance, paths))


def _librispeech_texts(chapter: Path) -> dict[str, str]:
    lines = _read_text(chapter / f"{chapter.parent.name}-{chapter.name}.trans.txt").splitlines()
    return {name: text for name, _, text in (line.partition(" ") for line in lines)}


def _manifest_utterances(manifest: Path) -> Iterator[Utterance]:
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [c for c in _MANIFEST_COLUMNS if c not in (reader.fieldnames or ())]
            if missing:
                raise DataError(
                    f"{manifest}, line 1: no column {', '.join(missing)}; "
                    f"the first line must name {', '.join(_MANIFEST_COLUMNS)}"
                )
            for row in reader:
                yield _manifest_utterance(manifest, reader.line_num, row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{manifest}: not a CSV file in UTF-8 ({error}); save it as one") from error
    if reader.line_num < 2:
        raise DataError(f"{manifest}: lists no recording; add one line for each")


def _manifest_utterance(manifest: Path, line: int, row: dict[str, str | None]) -> Utterance:
    where = f"{manifest}, line {line}"
    for column in _MANIFEST_COLUMNS:
        if not row[column]:
            raise DataError(f"{where}: no {column}; every line needs one")
    relative, speaker, split = (str(row[column]) for column in _MANIFEST_COLUMNS)
    if split not in SPLITS:
        raise DataError(f"{where}: unknown split {split!r}; use one of {', '.join(SPLITS)}")
    path = manifest.parent / relative
    if not path.is_file():
        raise DataError(f"{where}: no file {relative}; correct the path or remove the line")
    name = Path(relative).with_suffix("").as_posix()
    language, sex = row.get("language") or "en", (row.get("sex") or "")[:1].lower()
    return Utterance(
        path, name, speaker, split, row.get("text") or "", language, _SEXES.get(sex, "")
    )


def hashed_split(name: str, n_utterances: int) -> str:
    """Split an utterance by its name; a speaker with few utterances keeps all for training."""
    if n_utterances < _MIN_UTTERANCES_TO_SPLIT:
        return "train"
    bucket = zlib.crc32(name.encode(errors="surrogateescape")) % 50
    return {0: "valid", 1: "test"}.get(bucket, "train")


def _sorted_by_name(utterances: Iterable[Utterance]) -> list[Utterance]:
    """Sort by name, and refuse names that occur twice or cannot be written as UTF-8."""
    by_name: dict[str, Utterance] = {}
    for utterance in utterances:
        try:
            utterance.name.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{str(utterance.path)!a}: the file name is not UTF-8; rename it"
            ) from error
        other = by_name.setdefault(utterance.name, utterance)
        if other is not utterance:
            raise DataError(
                f"{utterance.path}: has the same name as {other.path}; rename or remove one"
            )
    return [by_name[name] for name in sorted(by_name)]
