"""One sentence at once while huggingface_hub asks a Hub that does not answer again and again."""

import logging as stdlib
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from transformers.utils import logging

logger = logging.get_logger(__name__)

# who tells there of a connection that broke, in two lines a try
_TELLERS = ("huggingface_hub.utils._http", "huggingface_hub.file_download")
_BROKEN = ("thrown while requesting", "Retrying in", "Error while downloading from")
# of an answer, the client's own line tells what it was
_ANSWERED = "HTTP Error"


class _Once(stdlib.Filter):
    """The first line of trouble becomes a sentence with the cure; those after it are not shown."""

    told = False

    def filter(self, record: stdlib.LogRecord) -> bool:
        said = record.getMessage()
        if _ANSWERED in said or not any(mark in said for mark in _BROKEN):
            return True
        if not self.told:
            self.told = True
            logger.warning(
                "The Hub at %s does not answer; it is asked again for a while. Break off when you like: started "
                "again, this goes on where it was.",
                constants.ENDPOINT,
            )
        return False


@contextmanager
def told_at_once() -> Iterator[None]:
    """Within it, what is tried again is said once, when it first fails; how often it is tried is the client's."""
    once = _Once()
    loggers = [stdlib.getLogger(name) for name in _TELLERS]
    for each in loggers:
        each.addFilter(once)
    try:
        yield
    finally:
        for each in loggers:
            each.removeFilter(once)


__all__ = ["told_at_once"]
