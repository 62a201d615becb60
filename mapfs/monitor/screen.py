"""The screen of `mapfs top`. The only user of `textual`."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import ClassVar, Final

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.widgets import DataTable, Footer, Sparkline, Static

from mapfs.errors import MapfsError
from mapfs.fuse.statistics import Snapshot
from mapfs.monitor.rates import Rates, rates_between
from mapfs.monitor.tables import (
    FILE_COLUMNS,
    RATE_COLUMNS,
    file_rows,
    rate_rows,
    summary_rows,
)

_INTERRUPTED: Final = 130
# How many intervals the trend of the slack goes back.
_TREND: Final = 120


class Top(App[str]):
    """Shows the rates of a mount until somebody quits, or the mount is gone.

    What `run` returns is why it ended by itself, or None. `return_code` is 130 after Ctrl-C, which
    is a key here: the terminal makes no signal of it.
    """

    CSS = """
    #above { height: 1fr; }
    #operations { width: 3fr; }
    #side { width: 2fr; padding: 0 1; }
    #trend { height: 3; margin: 1 0; }
    #files { height: 1fr; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar = [
        ("q", "quit", "Quit"),
        Binding("ctrl+c", "interrupt", show=False, priority=True),
        ("p", "pause", "Pause"),
        ("r", "order_operations('rate')", "Rate"),
        ("e", "order_operations('errors')", "Errors"),
        ("l", "order_operations('latency')", "Latency"),
        ("a", "order_files('accesses')", "Accesses"),
        ("s", "order_files('size')", "Size"),
        ("k", "order_files('slack')", "Slack"),
        ("m", "order_files('resident')", "Resident"),
        ("d", "order_files('dirty')", "Dirty"),
    ]

    def __init__(self, name: str, sample: Callable[[], Snapshot], interval: float) -> None:
        """`sample` is called in a thread every `interval` seconds; a `MapfsError` ends the app."""
        super().__init__()
        self._mount = name
        self._sample = sample
        self._interval = interval
        self._is_paused = False
        self._operation_order = "rate"
        self._file_order = "accesses"
        self._rates: Rates | None = None
        self._slack: deque[float] = deque(maxlen=_TREND)

    def compose(self) -> ComposeResult:
        """Operations and a summary above, files below."""
        yield Static(id="title", markup=False)
        with Horizontal(id="above"):
            yield DataTable[Text](id="operations", show_cursor=False)
            with Vertical(id="side"):
                yield Static(id="summary", markup=False)
                yield Sparkline([], id="trend")
        yield DataTable[Text](id="files", show_cursor=False)
        yield Footer()

    def on_mount(self) -> None:
        """Begin to watch."""
        self.query_one("#operations", DataTable).add_columns(*RATE_COLUMNS)
        self.query_one("#files", DataTable).add_columns(*FILE_COLUMNS)
        self._show_title()
        self.run_worker(self._watch())

    async def _watch(self) -> None:
        """Take samples until the mount is gone."""
        try:
            before = await asyncio.to_thread(self._sample)
            while True:
                await asyncio.sleep(self._interval)
                after = await asyncio.to_thread(self._sample)
                if not self._is_paused:
                    self._rates = rates_between(before, after)
                    self._slack.append(float(after.filesystem["slack_bytes"]))
                    self._show()
                before = after
        except MapfsError as error:
            self.exit(str(error))

    def _show(self) -> None:
        if self._rates is None:
            return
        rates = self._rates
        self._fill("#operations", rate_rows(rates, self._operation_order))
        self._fill("#files", file_rows(rates.files, self._file_order))
        lines = [f"{label:<15} {value}" for label, value in summary_rows(rates)]
        self.query_one("#summary", Static).update(Text("\n".join([*lines, "", "trend of slack"])))
        self.query_one("#trend", Sparkline).data = list(self._slack)

    def _fill(self, selector: str, rows: Sequence[Sequence[str]]) -> None:
        table = self.query_one(selector, DataTable)
        table.clear()
        for first, *others in rows:
            table.add_row(Text(first), *(Text(each, justify="right") for each in others))

    def _show_title(self) -> None:
        state = ", paused" if self._is_paused else f", every {self._interval:g} s"
        orders = f"operations by {self._operation_order}, files by {self._file_order}"
        self.query_one("#title", Static).update(Text(f"{self._mount}{state}; {orders}"))

    def action_interrupt(self) -> None:
        """End as by SIGINT."""
        self.exit(return_code=_INTERRUPTED)

    def action_pause(self) -> None:
        """Leave what is shown as it is, or go on."""
        self._is_paused = not self._is_paused
        self._show_title()

    def action_order_operations(self, order: str) -> None:
        """Sort the operations."""
        self._operation_order = order
        self._show_title()
        self._show()

    def action_order_files(self, order: str) -> None:
        """Sort the files."""
        self._file_order = order
        self._show_title()
        self._show()
