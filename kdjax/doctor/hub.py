"""The Hugging Face Hub: whether it can be reached, and as whom."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from kdjax.doctor.finding import Finding

SECONDS = 5.0
"""Time limit of asking the Hub, name resolution included."""
NEEDED_FOR = "only `hf:` names need it"


def hub(seconds: float = SECONDS) -> Finding:
    """Return whether the Hub can be reached, and whether its token is taken.

    Args:
        seconds: time limit.
    """
    from huggingface_hub import HfApi, constants, get_token  # noqa: PLC0415 - takes a while
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    if constants.HF_HUB_OFFLINE:
        return Finding("Hub", "note", "HF_HUB_OFFLINE is set", f"{NEEDED_FOR}, from the cache")
    token = get_token()
    api = HfApi(token=token)
    # One small request either way: who the token's user is, or the head of a public repository.
    ask = api.whoami if token else lambda: api.model_info("google-bert/bert-base-uncased")
    answer, error = _within(seconds, ask)
    where = constants.ENDPOINT
    if isinstance(error, HfHubHTTPError):
        if token and error.response.status_code == 401:
            return Finding("Hub", "note", f"{where} refuses the token", "hf auth login")
        return Finding("Hub", "note", f"{where} answers {error.response.status_code}", NEEDED_FOR)
    if error is not None:
        reason = " ".join(str(error).split()) or type(error).__name__
        return Finding("Hub", "note", f"{where} cannot be reached ({reason:.100})", NEEDED_FOR)
    if token:
        return Finding("Hub", "ok", f"{where}, as {answer['name']}")
    advice = "for private and gated repositories, and `kdjax export --push`: hf auth login"
    return Finding("Hub", "ok", f"{where}, without a token", advice)


def _within(seconds: float, ask: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """Call a function in a thread; return what it returns, and its error or that it took too long.

    A time limit of HTTP does not hold for the name's resolution; a thread that is left behind ends
    with the process.
    """
    results: list[Any] = []
    errors: list[Exception] = []

    def call() -> None:
        try:
            results.append(ask())
        except Exception as e:
            errors.append(e)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    if results:
        return results[0], None
    return None, errors[0] if errors else TimeoutError(f"no answer within {seconds:g} s")
