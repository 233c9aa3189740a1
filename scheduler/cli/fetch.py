"""`mloc fetch`: a run's files, downloaded."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mloc_tasks.errors import ArtifactNotFoundError
from scheduler.cli.options import AsJson, RunId, StageName

if TYPE_CHECKING:
    from scheduler.runs import Artifact, Run


def fetch(
    run: RunId,
    destination: Annotated[
        Path | None, typer.Argument(metavar="[DEST]", show_default=False, help="A directory. [default: ./RUN]")
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAMES]...", show_default=False, help="STAGE/FILE, or patterns. [default: all files]"),
    ] = None,
    stage: StageName = None,
    as_json: AsJson = False,
) -> None:
    """Download a run's files to DEST/STAGE/FILE.

    Digests are checked; files that are there already are replaced.

    Examples:

        mloc fetch last

        mloc fetch last ./out --stage train

        mloc fetch 3f2a ./out '*/responses.json'
    """
    from mloc_tasks.artifacts.disk import shown_bytes
    from scheduler.cli.documents import artifact_document
    from scheduler.cli.runs import find_run
    from scheduler.cli.terminal import print_json
    from scheduler.cli.wording import counted

    found = find_run(run)
    target = destination or Path(found.id)
    wanted = _select(found, stage, names or [])
    _download(found, wanted, target)
    if as_json:
        files = [{**artifact_document(each), "path": str(target / each.name)} for each in wanted]
        print_json({"run": found.id, "destination": str(target), "files": files})
        return
    total = shown_bytes(sum(each.size for each in wanted))
    for each in wanted:
        typer.echo(str(target / each.name))
    typer.echo(f"{counted(len(wanted), 'file')}, {total} in {target}", err=True)


def _select(run: Run, stage: str | None, patterns: list[str]) -> list[Artifact]:
    """The artifacts that are wanted. Raises ArtifactNotFoundError for a name or stage that gives none."""
    there = run.artifacts()
    if stage is not None:
        there = [each for each in there if each.stage == stage]
    if not there:
        what = f"stage {stage!r} of run {run.id}" if stage else f"run {run.id}"
        raise ArtifactNotFoundError(f"{what} has no files", hint=f"`mloc status {run.id}` tells how far it is")
    if not patterns:
        return there
    wanted: dict[str, Artifact] = {}
    for pattern in patterns:
        full = pattern if stage is None or pattern.startswith(f"{stage}/") else f"{stage}/{pattern}"
        matching = {each.name: each for each in there if fnmatch.fnmatchcase(each.name, full)}
        if not matching:
            held = ", ".join(each.name for each in there[:10])
            raise ArtifactNotFoundError(f"nothing of run {run.id} matches {pattern!r}; it has {held}")
        wanted |= matching
    return list(wanted.values())


def _download(run: Run, wanted: list[Artifact], target: Path) -> None:
    prefixes = {stage.name: stage.result.prefix for stage in run.status().stages if stage.result is not None}
    for stage in dict.fromkeys(each.stage for each in wanted):
        files = [each.name.removeprefix(f"{stage}/") for each in wanted if each.stage == stage]
        run.store.get_dir(prefixes[stage], target / stage, files)
