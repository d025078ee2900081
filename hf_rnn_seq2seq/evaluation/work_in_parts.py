"""Work on a long list in parts: shared between processes, kept as it is done, continued after a kill.

Each part is a file of its own until all are there and become the output, so that nothing is done twice, the order is
that of the list, and the output is the same whoever did which part. Several processes need accelerate (the extra
`train`).
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from transformers.utils import logging as transformers_logging

from ..data.files import read_json
from ..data.outputs import replacing, write_json, write_whole


logger = logging.getLogger(__name__)

_JOB_FILE = "job.json"


def start_processes(cpu: bool = False, **options: Any) -> torch.device:
    """Join the processes that torchrun or `accelerate launch` started, if any; return this one's GPU, or the `cpu`.

    `options` are further ones of accelerate's `PartialState`.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() and not cpu else None
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return accelerator or torch.device("cpu")
    from accelerate import PartialState

    # Those that finish first wait for the others, and longer than the ten minutes after which NCCL gives up.
    return PartialState(cpu=accelerator is None, **{"timeout": timedelta(days=7), **options}).device


def work_in_parts(
    items: Sequence[str],
    work: Callable[[Sequence[str]], Sequence[str]],
    output_file: str | Path,
    *,
    job: Mapping[str, Any],
    part_size: int = 1024,
    overwrite: bool = False,
) -> None:
    """Write one line for each item, in their order.

    Called by every process, with the same arguments, it divides the parts among them (they have to see the same
    files). The parts lie in `OUTPUT_FILE.parts` until all are done. Called again after a kill it does what is missing,
    with any number of processes.

    Args:
        items, output_file: what there is to do, and where the lines go.
        work: turns consecutive items into as many lines, which depend on them alone: then the output is the same byte
            by byte, whether or not there was a kill.
        job: what else the lines depend on, as JSON can say it; parts of another job are not mixed in.
        part_size: items of a part: what a kill can cost each process.
        overwrite: start again, whatever is there; else an output, or parts of another job, is a FileExistsError.
    """
    if part_size < 1:
        raise ValueError(f"part_size: got {part_size}, wanted at least 1")
    output_file = Path(output_file)
    folder = output_file.with_name(output_file.name + ".parts")
    number = -(-len(items) // part_size)
    rank, processes = (
        (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
    )
    plan: list[Any] = [None]
    if rank == 0:
        content = hashlib.sha256(json.dumps(list(items)).encode()).hexdigest()
        job = {"items": len(items), "content": content, "part_size": part_size, **job}
        _begin(folder, output_file, job, overwrite)
        plan = [[part for part in range(number) if not _part_file(folder, part).is_file()]]
        logger.info("%d of %d parts are to be done, by %d processes", len(plan[0]), number, processes)
    if processes > 1:
        # One looks for all: another one would find parts that a faster process has finished meanwhile.
        distributed.broadcast_object_list(plan)
    own = plan[0][rank::processes]
    progress = transformers_logging.tqdm(
        total=sum(len(items[part * part_size : (part + 1) * part_size]) for part in own), disable=rank > 0
    )
    for part in own:
        chunk = items[part * part_size : (part + 1) * part_size]
        lines = work(chunk)
        if len(lines) != len(chunk):
            raise ValueError(f"work: got {len(lines)} lines for {len(chunk)} items, wanted one each")
        if any("\n" in line for line in lines):
            raise ValueError(f"work: a line of part {part} has a line end in it")
        write_whole(_part_file(folder, part), "".join(line + "\n" for line in lines))
        progress.update(len(chunk))
    progress.close()
    if processes > 1:
        distributed.barrier()
    if rank == 0:
        _finish(folder, output_file, number)


def _part_file(folder: Path, part: int) -> Path:
    return folder / f"{part:08}"


def _begin(folder: Path, output_file: Path, job: Mapping[str, Any], overwrite: bool) -> None:
    """Create the folder of the parts, or check that what it holds is of this job."""
    record = folder / _JOB_FILE
    if overwrite and folder.exists():
        shutil.rmtree(folder)
    if record.is_file():
        before = read_json(record)
        differing = [
            f"{name} was {before.get(name)!r} and is {job.get(name)!r}"
            for name in dict.fromkeys([*before, *job])
            if before.get(name) != job.get(name)
        ]
        if differing:
            raise FileExistsError(
                f"{folder} holds parts of another job: {'; '.join(differing)}. Overwrite it, or name another output"
            )
    elif output_file.exists() and not overwrite:
        raise FileExistsError(f"{output_file} is there already: overwrite it, or name another output")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(record, job)


def _finish(folder: Path, output_file: Path, number: int) -> None:
    """Join the parts into the output, and delete them; the record goes last, so that a kill here is mended too."""
    with replacing(output_file) as joined, joined.open("wb") as output:
        for part in range(number):
            with _part_file(folder, part).open("rb") as handle:
                shutil.copyfileobj(handle, output)
    for part in range(number):
        _part_file(folder, part).unlink()
    shutil.rmtree(folder)
