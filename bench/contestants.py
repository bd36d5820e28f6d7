"""Who is measured by `compare.py`: each program, what it does of the job, what it leaves out."""

from dataclasses import dataclass
from pathlib import Path

from streams.roles import Role

PEERS = Path(__file__).resolve().parent / "peers"
LIMIT = "aiokafka"  # the row that the others are compared with
OURS = "clv-drift, ingest"  # these two are measured for delays at every rate, the others at one


@dataclass(frozen=True)
class Contestant:
    """One row of the table."""

    name: str
    does: str
    left_out: str = ""
    script: str = ""  # of a peer, in `peers/`
    flags: tuple[str, ...] = ()
    roles: tuple[Role, ...] = ()  # of our worker
    slow: bool = False  # is given the first lines only
    delay: bool = True

    @property
    def path(self) -> Path:
        """The program of a peer."""
        return PEERS / self.script


NO_VALIDATION = "validation and dead letters, late lines, snapshots in parts, exactness after a crash"
ORDERS = "an order is a change of the invoice number from one line to the next, not a set of invoices"

CONTESTANTS = (
    Contestant(LIMIT, "receives", script="plain_aiokafka.py"),
    Contestant(
        "aiokafka, tuned as the worker", "receives", script="plain_aiokafka.py", flags=("tuned",), delay=False
    ),
    Contestant("confluent-kafka", "receives", script="plain_confluent.py"),
    Contestant("kafka-python", "receives", script="plain_kafka_python.py"),
    Contestant(
        OURS,
        "the job: validation, rolling features, windows, snapshots, checkpoints",
        roles=(Role.INGEST,),
    ),
    Contestant(
        "clv-drift, ingest + evaluate",
        "the job, every window evaluated too (two processes, one core)",
        left_out="Evidently's comparison, which is a process of its own",
        roles=(Role.INGEST, Role.EVALUATE),
        delay=False,
    ),
    Contestant(
        "bytewax",
        "windows of 91 days every 7, a customer",
        left_out=f"{NO_VALIDATION}; recovery is off, so state dies with the process; {ORDERS};"
        " a customer's window closes with that customer's next line or at the end of the input",
        script="bytewax_flow.py",
        slow=True,
    ),
    Contestant(
        "quixstreams",
        "windows of 91 days every 7, a customer",
        left_out=f"{NO_VALIDATION}; windows begin on Thursdays, as its grid does; {ORDERS}",
        script="quix.py",
        slow=True,
    ),
    Contestant(
        "Faust, a line at a time",
        "91 days of weekly sums, a customer",
        left_out=f"{NO_VALIDATION}; windows by hand, since its own close by the wall clock; {ORDERS};"
        " a customer's window is sent with that customer's next line of a later week",
        script="naive_faust.py",
        slow=True,
    ),
)
