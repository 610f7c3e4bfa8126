"""`hiva push`, `hiva pull` and `hiva card`."""

from pathlib import Path
from typing import Annotated

import typer

from .shared import names, write_text

Repo = Annotated[str, typer.Argument(help="Its place on the Hub, org/name.")]
License = Annotated[
    str | None, typer.Option(help="Of what is sent, an identifier of the Hub such as apache-2.0; goes into the card.")
]
TrainedOn = Annotated[
    str, typer.Option("--trained-on", help="Names of the datasets, such as 'BP4D,DISFA', where the data does not say.")
]
Adapter = Annotated[bool, typer.Option("--adapter", help="The adapter alone.")]
Base = Annotated[str | None, typer.Option(help="With --adapter: Hub id of the detector it belongs to.")]
Faces = Annotated[bool, typer.Option("--dataset", help="Prepared faces, as `hiva data prepare` writes.")]
Space = Annotated[bool, typer.Option("--space", help="A Space, or a metric of evaluate, which is one too.")]


def push(
    folder: Annotated[Path, typer.Argument(help="Folder of a checkpoint, an adapter or prepared faces.")],
    repo: Repo,
    private: Annotated[bool, typer.Option("--private", help="Of a repository that is made.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch; made where it is not there.")] = None,
    adapter: Adapter = False,
    base: Base = None,
    dataset: Faces = False,
    space: Space = False,
    license: License = None,
    trained_on: TrainedOn = "",
    pull_request: Annotated[bool, typer.Option("--pr", help="Propose it; whoever may write there decides.")] = False,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Of the commit.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and show, and send nothing.")] = False,
):
    """Check a folder, show what will be sent, and send it to the Hub.

    A README.md in the folder is its card; without one a card is made of what was measured, see `hiva card`. An
    interrupted call, made again, goes on.
    """
    from ..hub import push as send
    from ..hub.contents import shown_size

    upload = _upload(folder, repo, adapter, base, dataset, license, names(trained_on), space)
    try:
        stated = upload.license
        if license is not None and stated not in (None, license):
            raise ValueError(f"`--license` is {license}, and README.md of {folder} says {stated}; make them the same.")
        if upload.problems:
            raise ValueError(" ".join(upload.problems))
        for name, size in upload.files.items():
            typer.echo(f"{shown_size(size):>9}  {name}")
        typer.echo(f"{shown_size(upload.size):>9}  in all, to {repo}{'' if revision is None else f' at {revision}'}")
        if upload.left_out:
            some = ", ".join(upload.left_out[:8]) + (", ..." if len(upload.left_out) > 8 else "")
            typer.echo(f"Left out: {some}")
        if dry_run:
            typer.echo("Nothing was sent: --dry-run.")
            return
        where = send(upload, repo, private=private, revision=revision, create_pr=pull_request, message=message)
    finally:
        upload.close()
    typer.echo("Nothing to send; everything is there already." if where is None else f"Sent to {where}")


def pull(
    repo: Repo,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    dataset: Annotated[bool, typer.Option("--dataset", help="A dataset.")] = False,
    space: Annotated[bool, typer.Option("--space", help="A Space.")] = False,
):
    """Fetch a repository of the Hub into a folder; what is there already is not fetched again."""
    from ..hub import pull as fetch
    from ..hub.contents import shown_size

    _check_repo(repo)
    if dataset and space:
        raise ValueError("`--dataset` and `--space` are kinds of repositories; give one of them.")
    files = fetch(repo, out, revision=revision, repo_type="dataset" if dataset else "space" if space else "model")
    size = sum(file.stat().st_size for file in files)
    typer.echo(f"{len(files)} files, {shown_size(size)}, in {out}")


def card(
    folder: Annotated[Path, typer.Argument(help="Folder of a checkpoint, an adapter or prepared faces.")],
    repo: Repo,
    adapter: Adapter = False,
    base: Base = None,
    dataset: Faces = False,
    license: License = None,
    trained_on: TrainedOn = "",
):
    """Write the card, README.md, of what was measured, to be read and completed before it is sent."""
    from ..hub.cards import is_blank_form

    upload = _upload(folder, repo, adapter, base, dataset, license, names(trained_on))
    try:
        # of an adapter it may be the folder `adapter` in that of its training
        place = upload.source / "README.md"
        if place.exists() and not (adapter and is_blank_form(place.read_text(encoding="utf-8"))):
            raise ValueError(f"{place} is there already; delete it, so that it is made anew.")
        made = upload.folder / "README.md"
        if not made.is_file():
            raise ValueError(" ".join(upload.problems))
        write_text(place, made.read_text(encoding="utf-8"))
        for problem in upload.problems:
            typer.echo(f"to do: {problem}", err=True)
    finally:
        upload.close()


def _check_repo(repo: str) -> None:
    from huggingface_hub.utils import validate_repo_id

    if repo.count("/") != 1:
        raise ValueError(f"`repo` must be org/name; got {repo}.")
    validate_repo_id(repo)


def _upload(
    folder: Path,
    repo: str,
    adapter: bool,
    base: str | None,
    dataset: bool,
    license: str | None,
    data: list[str],
    space: bool = False,
):
    from ..hub import adapter_upload, dataset_upload, model_upload, space_upload

    _check_repo(repo)
    if adapter + dataset + space > 1:
        raise ValueError("`--adapter`, `--dataset` and `--space` are kinds of things to send; give one of them.")
    if base is not None and not adapter:
        raise ValueError("`--base` belongs to `--adapter`.")
    if space:
        return space_upload(folder)
    if adapter:
        return adapter_upload(folder, repo, base, license, data)
    return (dataset_upload if dataset else model_upload)(folder, repo, license, data)
