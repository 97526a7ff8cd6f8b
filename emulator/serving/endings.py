"""How requests end: measured once, and told to metrics, log and whoever else subscribes."""

import logging
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as quoted
from time import monotonic
from typing import TypeAlias

from emulator import metrics
from emulator.log_lines import LINES
from emulator.metrics import TALLY
from emulator.serving.backlog import BACKLOG
from emulator.transport.ending import Ending
from emulator.transport.exchange import Exchange

MAX_NAME_LOGGED = 128

logger = logging.getLogger("bentoml.openai_emulator")


Subscriber: TypeAlias = Callable[[Exchange, Ending | None], None]
"""Is told how a request ended; None where it was refused before there was an answer."""


class Endings:
    """Tells each subscriber once of each request; ``under_way`` have not ended yet.

    They are told soon, and many requests at once.
    """

    def __init__(self, *subscribers: Subscriber) -> None:
        self._subscribers = [*subscribers]
        self.under_way = 0

    def subscribe(self, subscriber: Subscriber) -> None:
        """Tell one more."""
        self._subscribers.append(subscriber)

    def tell(self, exchange: Exchange) -> None:
        """Tell soon how a request ended, which it does now."""
        exchange.ended_s = monotonic()
        if self._subscribers:
            BACKLOG.add(self._tell, exchange)
        else:
            exchange.delivery = None

    def _tell(self, exchange: Exchange) -> None:
        # Break the cycle exchange -> receive -> connection -> scope -> exchange, which only the
        # garbage collector would find.
        delivery, exchange.delivery = exchange.delivery, None
        ending = None if delivery is None else delivery.ending()
        for subscriber in self._subscribers:
            subscriber(exchange, ending)


def add_to_metrics(exchange: Exchange, ending: Ending | None) -> None:
    """Add a request to the metrics."""
    if exchange.code:
        TALLY.add(metrics.ERRORS.labels(exchange.status, exchange.code))
    if ending is None:
        return
    for histogram, lag_s in (
        (metrics.TTFT_LAG, ending.ttft_lag_s),
        (metrics.ITL_LAG, ending.itl_lag_s),
        (metrics.WHOLE_LAG, ending.whole_lag_s),
    ):
        if lag_s is not None:
            TALLY.observe(histogram, lag_s)
    if ending.all_tokens:
        TALLY.add(metrics.TOKENS, ending.all_tokens)
    if ending.is_complete:
        for reason in ending.finish_reasons:
            TALLY.add(metrics.COMPLETED[reason])


def write_log_line(exchange: Exchange, ending: Ending | None) -> None:
    """Write the log line of a request; all times in ms, and no content."""
    if not logger.isEnabledFor(logging.INFO):
        return
    version = exchange.state.version
    revision = f" revision={version}" if version else ""
    if ending is None:
        if exchange.code:
            LINES.add(f"completion status={exchange.status} error={exchange.code}{revision}")
        return
    model = quoted(exchange.model[:MAX_NAME_LOGGED])
    total_ms, total_actual_ms = ending.total_s[0] * 1000, ending.total_s[1] * 1000
    fault = f" fault={ending.fault}" if ending.fault else ""
    if ending.kind != "completion":
        LINES.add(
            f"{ending.kind} model={model} status={exchange.status}{ending.note} "
            f"total_ms={total_ms:.2f} total_actual_ms={total_actual_ms:.2f}{fault}{revision}"
        )
        return
    LINES.add(
        f"completion id={ending.id} model={model} "
        f"mode={'stream' if ending.is_stream else 'whole'} "
        f"status={exchange.status} "
        f"choices={len(ending.finish_reasons)} tokens={ending.tokens}/{ending.planned} "
        f"finish_reason={ending.finish_reasons[0]} "
        f"ttft_ms={ending.ttft_s[0] * 1000:.2f} ttft_actual_ms={_ms(ending.ttft_s[1])} "
        f"itl_ms={ending.itl_s[0] * 1000:.2f} itl_actual_ms={_ms(ending.itl_s[1])} "
        f"itl_max_ms={ending.gap_s[0] * 1000:.2f} itl_max_actual_ms={_ms(ending.gap_s[1])} "
        f"total_ms={total_ms:.2f} total_actual_ms={total_actual_ms:.2f}"
        f"{fault}{ending.note}{revision}"
    )


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.2f}"
