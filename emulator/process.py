"""What a worker's process does once it has loaded everything, so that the clock is true."""

import gc
import logging
import sys

from emulator import metrics
from emulator.control.room import prepare_store
from emulator.journal.room import prepare_journal
from emulator.log_lines import keep_lines_printable
from emulator.rules.counting import create_counts
from emulator.serving.backlog import prepare_backlogs
from emulator.state import State
from emulator.timing.clock import running_clock

logger = logging.getLogger("bentoml.openai_emulator")

# gc thresholds: generation 0 every 700 objects, generation 1 every second of those, a full
# collection every 1,000th of these, which is every 1,400,000 objects.
COLLECT_AFTER = (700, 2, 1000)
# A thread that renders or counts gives way to the streams after this; 5 ms is Python's default.
SWITCH_INTERVAL_S = 0.0005


def prepare_shared(state: State) -> None:
    """Create what the workers share, before any of them starts, and write rules' warnings.

    Raises:
        ConfigError: The store cannot be reached.
    """
    # What may be no mistake of the operator's, but looks like one.
    for warning in () if state.rules is None else state.rules.warnings:
        logger.warning("rules: %s", warning)
    create_counts()
    prepare_backlogs()
    prepare_journal(state.settings)
    prepare_store(state.settings.store)


async def settle(timer_slack_us: int) -> None:
    """Prepare the process that is about to serve.

    A full collection over BentoML's many objects stalls every stream for 70 to 130 ms, so they are
    taken out of the garbage collector's sight, and full collections are made rare.

    Args:
        timer_slack_us: How late a token may leave, so that it costs less.
    """
    metrics.forget_dead_workers()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    # No log line tells them, and each costs a look-up for each line.
    logging.logProcesses = logging.logThreads = logging.logMultiprocessing = False
    if timer_slack_us:
        running_clock().slacken(timer_slack_us / 1e6)
    keep_lines_printable()
