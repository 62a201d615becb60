"""`mapfs` with workers that die at a moment that the test chooses.

The file named by MAPFS_TEST_MOMENT says when, and is removed by the worker that dies:
`before MKDIR` or `after MKDIR`, next to executing a request of that kind, and before its answer;
`receiving`, when the connection is sent to it and not received. At `opening` each ends instead of
opening the store, and the file stays; at `opening slowly` it takes its time to do so.
"""

import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

from mapfs.cli import main
from mapfs.fuse import session, worker
from mapfs.fuse.wire.loop import WireTransport
from mapfs.fuse.wire.protocol import Opcode
from mapfs.fuse.wire.request import Answer, Request

MOMENT = Path(os.environ["MAPFS_TEST_MOMENT"])


def _die_if(moment: str) -> None:
    if MOMENT.exists() and MOMENT.read_text() == moment:
        MOMENT.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def _patch() -> None:
    inner = WireTransport._execute
    open_filesystem = worker.open_filesystem
    receive_connection = worker._receive_connection

    def execute(self: WireTransport, request: Request) -> Answer:
        name = Opcode(request.opcode).name
        _die_if(f"before {name}")
        answer = inner(self, request)
        _die_if(f"after {name}")
        return answer

    def open_or_end(job: session.Job, *, keep_orphans: bool = False):
        if MOMENT.exists() and MOMENT.read_text().startswith("opening") and keep_orphans:
            time.sleep(1.2 if MOMENT.read_text() == "opening slowly" else 0)
            os._exit(3)
        return open_filesystem(job, keep_orphans=keep_orphans)

    def receive(channel: socket.socket):
        select.select([channel], [], [])
        _die_if("receiving")
        return receive_connection(channel)

    worker._receive_connection = receive
    WireTransport._execute = execute  # type: ignore[method-assign]
    worker.open_filesystem = open_or_end


if __name__ == "__main__":
    _patch()
    sys.argv[0] = "mapfs"
    main()
