"""Language models that write descriptions: one on this machine, or one behind an address (extra `describe`)."""

import os
from typing import Any, Protocol
from urllib.parse import urlsplit

ATTEMPTS = 6
_LONGEST_WAIT = 60.0


class Writer(Protocol):
    """Answers messages.

    Args:
        provenance (`dict`): Which model it is, of which revision, where, with which parameters.
    """

    provenance: dict[str, Any]

    def __call__(self, messages: list[dict[str, str]], seed: int) -> str:
        """The answer to a conversation; the same for the same seed where the model can."""
        ...


class LocalWriter:
    """A chat model of transformers on this machine.

    Args:
        model (`str`): Hub id or folder.
        revision (`str`, *optional*): Branch, tag or commit.
        temperature (`float`, defaults to 0.8): 0 takes the likeliest word each time.
        top_p (`float`, defaults to 0.95): Share of the likeliest words to draw from.
        max_tokens (`int`, defaults to 200): Longest answer.
        device (`str`, *optional*): By default the accelerator that is there.
    """

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        temperature: float = 0.8,
        top_p: float = 0.95,
        max_tokens: int = 200,
        device: str | None = None,
    ):
        from transformers import pipeline

        self._pipeline = pipeline("text-generation", model=model, revision=revision, device=device)
        self._options: dict[str, Any] = {"max_new_tokens": max_tokens, "do_sample": temperature > 0}
        if temperature > 0:
            self._options |= {"temperature": temperature, "top_p": top_p}
        commit = getattr(self._pipeline.model.config, "_commit_hash", None)
        self.provenance = {
            "generator": model,
            "revision": commit or revision,
            "where": "local",
            "parameters": {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens},
        }

    def __call__(self, messages: list[dict[str, str]], seed: int) -> str:
        """The answer to a conversation."""
        from transformers import set_seed

        set_seed(seed)
        conversation: Any = messages
        if getattr(self._pipeline.tokenizer, "chat_template", None) is None:
            conversation = "\n".join(message["content"] for message in messages) + "\n"
        (answer,) = self._pipeline(conversation, return_full_text=False, **self._options)
        return answer["generated_text"]


class EndpointWriter:
    """A model behind the chat-completions protocol: an OpenAI-compatible server, or an inference endpoint of the Hub.

    A server that is busy, slow or breaks off is asked again, up to six times, after the time it names (`Retry-After`)
    or one that grows.

    Args:
        model (`str`): Its name there.
        base_url (`str`, *optional*): Address of the server, such as `http://localhost:8000/v1`; by default that of
            `OPENAI_BASE_URL`, else the inference providers of the Hub.
        token (`str`, *optional*): By default that of `OPENAI_API_KEY` where there is an address, else the Hub's own.
        temperature (`float`, defaults to 0.8): As of [`LocalWriter`].
        top_p (`float`, defaults to 0.95): As of [`LocalWriter`].
        max_tokens (`int`, defaults to 200): Longest answer.
        timeout (`float`, defaults to 60): Seconds to wait for an answer.

    Raises:
        ImportError: If tenacity is not installed.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        token: str | None = None,
        temperature: float = 0.8,
        top_p: float = 0.95,
        max_tokens: int = 200,
        timeout: float = 60.0,
    ):
        from huggingface_hub import InferenceClient

        base_url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        token = token or (os.environ.get("OPENAI_API_KEY") if base_url else None) or None
        self._client = InferenceClient(base_url=base_url, token=token, timeout=timeout)
        parameters: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
        self._options = {"model": model, **parameters}
        self._ask = _patiently(self._once)
        self.provenance = {
            "generator": model,
            "revision": None,
            # a token may stand in the rest of an address
            "where": urlsplit(base_url).hostname if base_url else "Hub inference providers",
            "parameters": parameters,
        }

    def _once(self, messages: list[dict[str, str]], seed: int) -> str:
        answer = self._client.chat_completion(messages, seed=seed, **self._options)
        try:
            return answer.choices[0].message.content or ""
        except (AttributeError, IndexError, TypeError, KeyError):
            raise _BrokenAnswerError(f"the server's answer has no choices: {str(answer)[:200]}") from None

    def __call__(self, messages: list[dict[str, str]], seed: int) -> str:
        """The answer to a conversation.

        Raises:
            ConnectionError: If the server does not answer, or refuses; the message tells what it said.
        """
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        try:
            return self._ask(messages, seed)
        except OfflineModeIsEnabled:
            raise ConnectionError(
                f"{self.provenance['where']} cannot be asked while HF_HUB_OFFLINE is set; unset it."
            ) from None
        except HfHubHTTPError as error:
            status = error.response.status_code
            cures = {401: " Is the token right?", 403: " May the token do this?", 404: " Is the model's name right?"}
            raise ConnectionError(
                f"{self.provenance['where']} must answer; it said {status} to {self._options['model']}: "
                f"{error.response.text[:300].strip() or error}.{cures.get(status, '')}"
            ) from None
        except _transient_errors() as error:
            raise ConnectionError(
                f"{self.provenance['where']} must answer; {ATTEMPTS} times it did not: {type(error).__name__}, {error}."
            ) from None


class _BrokenAnswerError(ValueError):
    """What came is no answer of the protocol."""


def _transient_errors() -> tuple[type[Exception], ...]:
    """What may be otherwise next time: broken or silent connections, and answers that are no JSON."""
    from huggingface_hub.errors import InferenceTimeoutError

    # the base of all errors of the HTTP library that huggingface_hub uses at present
    http_error = InferenceTimeoutError.__mro__[1]
    return (http_error, ConnectionError, TimeoutError, _BrokenAnswerError, ValueError)


def _patiently(function: Any) -> Any:
    """Ask again where that may help."""
    try:
        from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random_exponential
    except ImportError:
        raise ImportError(
            "Asking a server needs tenacity; install it with `pip install 'hiva-hf[describe]'`."
        ) from None
    from huggingface_hub.errors import OfflineModeIsEnabled

    growing = wait_random_exponential(multiplier=0.5, max=_LONGEST_WAIT)

    def again(error: BaseException) -> bool:
        response = getattr(error, "response", None)
        if response is not None:
            return response.status_code in (408, 429) or response.status_code >= 500
        if isinstance(error, OfflineModeIsEnabled):
            return False
        return isinstance(error, _transient_errors())

    def wait(state: Any) -> float:
        response = getattr(state.outcome.exception(), "response", None)
        named = None if response is None else response.headers.get("Retry-After")
        try:
            return min(float(named or ""), _LONGEST_WAIT)
        except ValueError:
            return growing(state)

    return retry(stop=stop_after_attempt(ATTEMPTS), wait=wait, retry=retry_if_exception(again), reraise=True)(function)


__all__ = ["ATTEMPTS", "EndpointWriter", "LocalWriter", "Writer"]
