"""Over HTTP, and one sentence with the cure where that fails."""

import os
from pathlib import Path

import torch
from huggingface_hub import HfApi, SpaceCard, constants, get_token, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import filter_repo_objects

from ..lora import adapter_misfit
from .patience import told_at_once
from .staging import Upload

# what is never fetched: a pickle runs code when it is loaded
_PICKLES = ["*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.joblib"]


@told_at_once()
def push(
    upload: Upload,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    message: str | None = None,
) -> str | None:
    """Send a folder; what a first, interrupted call has sent is not sent again.

    Args:
        upload (`Upload`): Without problems.
        repo_id (`str`): `org/name`; made where it is not there, unless a pull request is opened.
        private (`bool`, defaults to `False`): Of a repository that is made.
        revision (`str`, *optional*): Branch, made where it is not there; by default `main`.
        create_pr (`bool`, defaults to `False`): Propose it, as one who must not write there can.
        message (`str`, *optional*): Of the commit.

    Returns:
        `str`: Address of the commit or of the pull request; `None` where everything was there already.

    Raises:
        ValueError: If something stands against the upload, the base of an adapter is not on the Hub, or a repository
            that is to be private is there and public.
        PermissionError: If a repository must be made where you must not make one.
        ConnectionError: If it broke off.
    """
    if upload.problems:
        raise ValueError(" ".join(upload.problems))
    if constants.is_offline_mode():
        raise ConnectionError("Pushing needs the Hub, and HF_HUB_OFFLINE keeps it away: unset it.")
    api, kind = HfApi(), upload.repo_type
    if upload.base is not None:
        _check_base(api, upload)
    if not create_pr:
        sdk = SpaceCard.load(upload.folder / "README.md").data.sdk if kind == "space" else None
        try:
            api.create_repo(repo_id, repo_type=kind, private=private, space_sdk=sdk, exist_ok=True)
        except HfHubHTTPError as error:
            if error.response.status_code != 403:
                raise
            raise PermissionError(
                f"{_token()} must not make {repo_id}, which is not there: choose a name of your own, or ask whoever "
                f"owns {repo_id.split('/')[0]}."
            ) from None
        if private and not api.repo_info(repo_id, repo_type=kind).private:
            raise ValueError(
                f"`--private` is for a repository that is made; {repo_id} is there, and public. Change that on its "
                "page, or choose another name."
            )
        if revision is not None:
            api.create_branch(repo_id, branch=revision, repo_type=kind, exist_ok=True)
    before = api.repo_info(repo_id, repo_type=kind, revision=revision).sha
    try:
        done = api.upload_folder(
            repo_id=repo_id,
            folder_path=upload.folder,
            repo_type=kind,
            revision=revision,
            create_pr=create_pr,
            commit_message=message or f"Upload {upload.kind} with hiva_hf",
        )
    except RuntimeError as error:
        # so huggingface_hub wraps what happened to a file
        raise ConnectionError(hub_sentence(error) or str(error)) from error
    return None if done.oid == before else str(done.pr_url or done.commit_url)


def _check_base(api: HfApi, upload: Upload) -> None:
    """The base of an adapter is on the Hub, and is the detector that the adapter was trained on."""
    base = str(upload.base)
    if not api.repo_exists(base):
        raise ValueError(
            f"`--base` must be a detector on the Hub, so that others can load the adapter; there is no {base} that you "
            "may see. Push it first."
        )
    from transformers.initialization import no_init_weights

    from ..configuration_hiva import HiVAConfig
    from ..modeling_hiva import HiVAForImageClassification

    kind = HiVAConfig.get_config_dict(base)[0].get("model_type")
    if kind != "hiva":
        raise ValueError(f"`--base` must be a HiVA detector; {base} holds a model of type {kind!r}.")
    # names and shapes alone
    with torch.device("meta"), no_init_weights():
        model = HiVAForImageClassification(HiVAConfig.from_pretrained(base))
    if misfit := adapter_misfit(model, upload.folder):
        raise ValueError(
            f"`--base` must be the detector that the adapter was trained on, and {base} is another: {misfit}. Push "
            "that detector, and name it."
        )


@told_at_once()
def pull(repo_id: str, out: str | Path, *, revision: str | None = None, repo_type: str = "model") -> list[Path]:
    """Fetch a repository into a folder; files that are there and whole are not fetched again. Pickles stay away.

    Args:
        repo_id (`str`): `org/name`.
        out (`str` or `Path`): Folder.
        revision (`str`, *optional*): Branch, tag or commit.
        repo_type (`str`, defaults to `"model"`): `"model"`, `"dataset"` or `"space"`.

    Returns:
        `list[Path]`: The files of the repository; what else lies in the folder is not among them.
    """
    info = HfApi().repo_info(repo_id, repo_type=repo_type, revision=revision)
    names = [sibling.rfilename for sibling in getattr(info, "siblings", None) or []]
    place = Path(
        snapshot_download(repo_id, repo_type=repo_type, revision=info.sha, local_dir=out, ignore_patterns=_PICKLES)
    )
    return sorted(place / name for name in filter_repo_objects(names, ignore_patterns=_PICKLES))


def hub_sentence(error: BaseException) -> str | None:
    """What went wrong between here and the Hub, and the cure, in one sentence; `None` where it was something else.

    Args:
        error (`BaseException`): It, or what it was raised from, is looked at.
    """
    seen: BaseException | None = error
    while seen is not None:
        sentence = _sentence(seen)
        if sentence:
            return sentence
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return None


def _token() -> str:
    return "HF_TOKEN" if os.environ.get("HF_TOKEN") else "the token that is stored here"


def _sentence(error: BaseException) -> str | None:
    what = _asked_for(error)
    if isinstance(error, GatedRepoError):
        return f"{what} is gated: ask for access on its page, then log in with `hf auth login` or HF_TOKEN."
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{what} must be a repository that you may see; the Hub has none by this name, or it is private. Check the "
            "name, or log in with `hf auth login` or HF_TOKEN."
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{what} must have the revision that was asked for; it has none by this name. Check `--revision`."
    if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
        if constants.is_offline_mode():
            return f"{what} is not in the cache, and HF_HUB_OFFLINE keeps the Hub away: fetch it once while online."
        return f"{what} is not in the cache, and the Hub cannot be reached at {constants.ENDPOINT}: try again online."
    if isinstance(error, EntryNotFoundError):
        return f"{what} lacks a file that was asked for: is it a HiVA checkpoint?"
    if isinstance(error, HTTPError) and not isinstance(error, HfHubHTTPError):
        kind = type(error).__name__
        if kind.startswith("Connect"):
            return f"The Hub cannot be reached at {constants.ENDPOINT} ({kind}): try again online."
        return f"The connection to the Hub at {constants.ENDPOINT} broke off ({kind}): started again, it goes on."
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        status = error.response.status_code
        if status == 401:
            if get_token() is None:
                return (
                    "The Hub must know who sends something; nobody is logged in. Run `hf auth login`, or set HF_TOKEN."
                )
            return f"The Hub does not know {_token()}: make a new one on its page, then `hf auth login` or HF_TOKEN."
        if status == 403:
            return f"{_token()} must not write to {what}: propose it with `--pr`, or choose a name of your own."
        return f"The Hub answered {status} for {what}: {error.server_message or 'no reason given'}."
    return None


def _asked_for(error: BaseException) -> str:
    response = getattr(error, "response", None)
    if response is None:
        return "What was asked for"
    parts = [part for part in response.url.path.split("/") if part]
    parts = parts[1:] if parts[:1] == ["api"] else parts
    parts = parts[1:] if parts[:1] in (["models"], ["datasets"], ["spaces"]) else parts
    return "/".join(parts[:2]) or "What was asked for"


__all__ = ["hub_sentence", "pull", "push"]
