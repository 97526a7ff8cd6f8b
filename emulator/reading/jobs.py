"""The results of helpers' jobs, with their failures as answers to the client."""

import logging
from typing import Any

from emulator.contract.error_words import overloaded, server_error
from emulator.contract.errors import APIError
from emulator.helpers.pool import BusyError, FailedError, Job, Pieces, TooMuchError

logger = logging.getLogger("bentoml.openai_emulator")


async def next_result(job: Job) -> tuple[Any, Pieces]:
    """Return the next result of a job: an object, and bytes in pieces.

    Raises:
        APIError: It takes too much, or there is no time for it, or it failed.
    """
    try:
        return await job.next()
    except BusyError:
        raise overloaded() from None
    except TooMuchError:
        raise APIError(
            "This request takes more time or memory than the server allows one. "
            "Expected a smaller request or a simpler schema.",
            code="request_too_complex",
        ) from None
    except FailedError as error:
        logger.error("a helper failed\n%s", error)  # noqa: TRY400 - the traceback is the helper's
        raise server_error() from None
