"""The worker, unchanged but that it notes when a batch is applied and what follows from it handed on.

`delay_worker.py RECORDS` speaks as the peers do (see `peers/meter.py`); settings come from the environment.
"""

import json
import sys
import threading

from peers.meter import Meter

from streams.consumption import Batch
from streams.ingest import Shard
from streams.roles import Role
from streams.settings import load_settings
from streams.worker import run


def main() -> None:
    meter = Meter(int(sys.argv[1]), timed=True)
    take = Shard.take

    async def take_and_note(shard: Shard, batch: Batch) -> None:
        await take(shard, batch)
        meter.count(len(batch.values))
        for value in batch.values:
            meter.note(json.loads(value or b"{}"))
        if meter.full:
            # `finish` waits for ever, in a thread: the worker goes on as in service.
            threading.Thread(target=meter.finish, daemon=True).start()

    Shard.take = take_and_note  # type: ignore[method-assign]
    run(load_settings(), Role.INGEST)


if __name__ == "__main__":
    main()
