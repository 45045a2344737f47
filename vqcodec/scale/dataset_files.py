"""How a data set that was made lies in its folder, and whether all of it is there.

``data/`` has the parts, ``vqcodec/plan.json`` what was to be made, ``vqcodec/parts/`` what became
of each part, and ``vqcodec/complete.json``, which is written last, what became of all.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, Literal

from vqcodec.errors import DataError
from vqcodec.scale import storage

SinkName = Literal["parquet", "webdataset", "lhotse", "folder"]
Content = Literal["codes", "units", "sound"]

FORMAT, VERSION = "vqcodec-dataset", 1
RECORDS = "vqcodec"
PLAN, COMPLETE = f"{RECORDS}/plan.json", f"{RECORDS}/complete.json"


def part_name(number: int) -> str:
    """What the files of a part are called."""
    return f"{number:06d}"


def report_file(number: int) -> str:
    """Where it is said what became of a part."""
    return f"{RECORDS}/parts/{part_name(number)}.json"


def data_files(to: SinkName, content: Content, number: int) -> list[str]:
    """The files of a part, where there are not as many as it has recordings."""
    part = part_name(number)
    named = {
        "parquet": [f"data/{part}.parquet"],
        "webdataset": [f"data/{part}.tar"],
        "lhotse": [f"data/cuts.{part}.jsonl.gz", f"data/{content}.{part}.tar"],
    }
    return named.get(to, [])


def missing_parts(plan: Mapping[str, Any], found: Collection[str]) -> list[int]:
    """Numbers of the parts of a plan of which something is not among the files of a folder."""
    there = {*found}
    return [
        number
        for number in range(plan["n_parts"])
        if not {report_file(number), *data_files(plan["to"], plan["content"], number)} <= there
    ]


def read_plan(root: str, found: Mapping[str, str]) -> dict[str, Any]:
    """What was to be made in a folder, which is complete; `found` is `storage.files_at` of it.

    Raises DataError if it is of a later version, or something is missing.
    """
    plan: dict[str, Any] = json.loads(storage.read(found[PLAN]))
    if plan["version"] > VERSION:
        raise DataError(
            f"{root}: version {plan['version']} is newer than {VERSION}; update vqcodec"
        )
    if missing := missing_parts(plan, found):
        raise DataError(
            f"{root}: lacks {len(missing)} of {plan['n_parts']} parts, the first "
            f"{part_name(missing[0])}; run the command that makes it once more"
        )
    if COMPLETE not in found:
        raise DataError(f"{root}: is not finished; run the command that makes it once more")
    return plan
