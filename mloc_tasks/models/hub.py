"""Models of the Hugging Face Hub: which commit to load, and errors that say what to do."""

from __future__ import annotations

from pathlib import Path

from mloc_tasks.errors import ModelError, ModelUnavailableError

_OFFLINE_HINT = (
    "download it once where there is a network (`hf download {identifier}`) and set HF_HOME to that cache on the "
    "worker, or use model.source.type: local"
)


def resolve_revision(identifier: str, *, revision: str | None = None) -> str:
    """The commit that `identifier` at `revision` (default: its main branch) means now; its `config.json` is fetched.

    Without a network the newest commit in the local cache counts. Pinning the commit keeps one model's files
    together when its repository changes between two downloads.

    Raises ModelError when it does not exist or is not accessible, ModelUnavailableError (retryable) when the Hub did
    not answer and the cache does not have it.
    """
    from huggingface_hub import constants, errors, hf_hub_download

    where = f"model {identifier!r}" + (f" at revision {revision!r}" if revision else "")
    offline_hint = _OFFLINE_HINT.format(identifier=identifier)
    try:
        config = hf_hub_download(identifier, "config.json", revision=revision)
    except errors.HFValidationError as error:
        raise ModelError(
            f"{identifier!r} is not a Hugging Face identifier: {error}",
            hint="it looks like organisation/name; for a path use model.source.type: local",
        ) from error
    except errors.GatedRepoError as error:
        hint = "accept its terms on its Hugging Face page, then set HF_TOKEN on the workers"
        raise ModelError(f"{where} is gated", hint=hint) from error
    except errors.RepositoryNotFoundError as error:
        hint = "check the spelling; a private model needs HF_TOKEN on the workers"
        raise ModelError(f"{where} does not exist on Hugging Face, or is private", hint=hint) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(f"{where}: there is no such branch, tag or commit") from error
    except errors.LocalEntryNotFoundError as error:
        if constants.HF_HUB_OFFLINE:
            message = f"{where} is not in the local Hugging Face cache, and HF_HUB_OFFLINE is set"
            raise ModelError(message, hint=offline_hint) from error
        message = f"{where} is not in the local Hugging Face cache, and the Hub cannot be reached"
        raise ModelUnavailableError(message, hint=offline_hint) from error
    except errors.EntryNotFoundError as error:
        hint = "GGUF-only repositories: download the file and use model.source.type: local"
        raise ModelError(f"{where} has no config.json, so it is no Transformers model", hint=hint) from error
    # .../models--org--name/snapshots/<commit>/config.json
    return Path(config).parent.name
