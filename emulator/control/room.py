"""The control room of one worker, put together."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from emulator.control.driver import Driver
from emulator.control.endpoints import Control
from emulator.control.operations import Operation
from emulator.control.status import StatusReader
from emulator.control.truth import Truth, Watch, prepare_sharing
from emulator.limits import gate
from emulator.settings import MEMORY, ConfigError
from emulator.state import LiveState

if TYPE_CHECKING:
    from emulator.control.redis_keeper import RedisKeeper


def prepare_store(store: str) -> None:
    """Create what the workers share, limits' buckets too, before any worker starts.

    Args:
        store: Where several servers share their changes, or ``memory``.

    Raises:
        ConfigError: It cannot be reached.
    """
    gate.prepare_store(store)
    kept = b""
    if store != MEMORY:
        from emulator.control.redis_keeper import kept_at_start  # noqa: PLC0415 - optional
        from emulator.limits.redis_store import StoreError  # noqa: PLC0415 - optional

        try:
            kept = kept_at_start(store)
        except StoreError as error:
            raise ConfigError(str(error)) from None
    prepare_sharing(kept)


class ControlRoom:
    """What changes this server while it runs.

    ``control`` answers the requests for ``paths``.

    Args:
        live: Gets the state that the changes make.
        version: The emulator's.
        fast_path: Tells by package whether answers go past it.
        on_mark: Is told the text of each mark of a schedule.
        matched: Tells how often each rule has matched.
    """

    paths = ("/emulator", "/emulator/{rest:path}")

    def __init__(
        self,
        live: LiveState,
        version: str,
        fast_path: Callable[[], dict[str, bool]],
        on_mark: Callable[[str], object],
        matched: Callable[[], dict[str, int]],
    ) -> None:
        store = live.start.settings.store
        self._keeper = None if store == MEMORY else _open_keeper(store)
        self.truth = Truth.opened(live, self._keeper)
        self.control = Control(
            self.truth, StatusReader(self.truth, version, fast_path, self._keeper, matched)
        )
        self._driver = Driver(self.truth, on_mark)
        self._ticks = ticks = [self._driver.tick]
        if self._keeper is not None:
            from emulator.control.redis_keeper import Follower  # noqa: PLC0415 - optional

            ticks.append(Follower(self.truth, self._keeper).tick)
        self._watch = Watch(self.truth, ticks)

    @property
    def operations(self) -> Sequence[Operation]:
        """What can be asked; nothing where control is off."""
        is_off = self.truth.live.start.settings.control == "off"
        return () if is_off else self.control.table.operations

    def add(self, operations: Sequence[Operation], ticks: Sequence[Callable[[], None]]) -> None:
        """Answer operations of another room too, and call its ticks many times a second."""
        self.control.add(operations)
        self._ticks += ticks

    def start(self) -> None:
        """Begin to look for changes, as one of the workers that a change waits for."""
        self.truth.join()
        self._watch.start()

    async def stop(self) -> None:
        """End."""
        self._watch.stop()
        self._driver.stop()
        if self._keeper is not None:
            await self._keeper.close()


def _open_keeper(url: str) -> "RedisKeeper":
    from emulator.control.redis_keeper import RedisKeeper  # noqa: PLC0415 - optional

    return RedisKeeper(url)
