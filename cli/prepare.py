"""prepare."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import typer
from vqcodec_cli.display import progress_bar, show
from vqcodec_cli.options import Jobs, files_at_a_time

from vqcodec.errors import DataError

CorpusName = Literal[
    "vctk", "librispeech", "libritts", "ljspeech", "commonvoice", "folder", "lhotse", "datasets"
]
"""How recordings lie: the keys of `vqcodec.data.corpora.CORPORA`; and sources of data sets."""


def prepare(
    corpus: Annotated[
        CorpusName, typer.Argument(help="The layout; folder: SPEAKER/NAME.wav, or a manifest.csv.")
    ],
    root: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where the corpus lies, or the file of cuts.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="The folder to make.")
    ],
    sample_rate: Annotated[
        int, typer.Option(min=1000, max=768_000, help="Sample rate of the result, in Hz.")
    ] = 16000,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Phone labels of the recordings (.lab, .phn, .TextGrid, .ctm), for loss.phones.",
        ),
    ] = None,
    jobs: Jobs = None,
    download: Annotated[
        bool,
        typer.Option("--download", help="Fetch vctk (11 GB) or librispeech (6 GB) to DIR first."),
    ] = False,
) -> None:
    """Convert a corpus to the form that training reads; an interrupted run is continued.

    Example: vqcodec prepare vctk VCTK-Corpus -o data/vctk
    """
    from vqcodec.data import corpora, phones, prepared
    from vqcodec.data.clips import duration
    from vqcodec.scale.utterances import source_utterances

    if download:
        corpora.download(corpus, root)
    elif not root.exists():
        raise DataError(f"{root}: no such file or folder; check the path")
    with progress_bar("preparing") as on_progress:
        data = prepared.prepare(
            corpora.CORPORA.get(corpus, source_utterances)(root),
            output,
            sample_rate=sample_rate,
            jobs=files_at_a_time(jobs),
            corpus=corpus,
            on_progress=lambda n_done, n_all: on_progress(n_done / n_all),
        )
    track = phones.add_phones(data, labels) if labels else None
    n_failed = len(data.failures)
    splits = Counter(clip.split for clip in data.clips)
    show(
        {
            "output": str(output),
            "clips": len(data.clips),
            "length": duration(len(data.audio) / data.sample_rate),
            "speakers": len({clip.speaker for clip in data.clips}),
            "splits": {name: splits[name] for name in corpora.SPLITS if splits[name]},
            **({"labelled": track.n_clips} if track else {}),
            "left_out": f"{n_failed}, see {output / 'failed.jsonl'}" if n_failed else 0,
        },
        as_json=False,
    )
