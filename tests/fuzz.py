"""Coverage-guided fuzzing of all that reads bytes of anybody, by Atheris. `make fuzz` runs it; CI does not.

`python tests/fuzz.py` gives each target a process of its own and so many seconds; what it found worth keeping
stays in `var/fuzz/NAME`, and the next run begins with it. A target fails by any exception but those it
promises, by 2 GiB of memory, or by an input that takes 25 s. `python tests/fuzz.py NAME FILE` repeats one.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["streams", "models", "producers"]):
    import test_fuzz
    from line_factory import line, state_config

    from models.artefact import ArtefactError, load_pipeline
    from models.card import CardError, read_card
    from producers.inputs import file_input
    from streams.checkpoints import StateUnusableError, load, newest_head
    from streams.decode import Decoder
    from streams.errors import UserError
    from streams.transactions import FIELDS, encode_line
    from streams.vocabulary import Vocabulary

HEAD = next(key for key in test_fuzz.STORED if b"head" in key)


def decoder(data: bytes) -> None:
    values = data.split(b"\n")
    found = Decoder(Vocabulary(), None, None).decode(values, [()] * len(values))
    told = {*found.positions.tolist(), *(letter.position for letter in found.dead)}
    assert told == set(range(len(values)))


def messages(data: bytes) -> None:
    for read in test_fuzz.READERS.values():
        with suppress(ValueError):
            read(data)


def snapshots(data: bytes) -> None:
    with suppress(ValueError):
        test_fuzz.joined([data])


def checkpoints(data: bytes) -> None:
    with suppress(StateUnusableError):
        newest_head([(HEAD, data)])
    for key in test_fuzz.STORED:
        with suppress(StateUnusableError):
            load(0, state_config(), test_fuzz.STORED | {key: data})


def models(data: bytes) -> None:
    with suppress(ArtefactError):
        load_pipeline(data)
    with suppress(CardError):
        read_card(data)


def files(data: bytes) -> None:
    """A file of any kind, told by its first bytes as the program does."""
    with tempfile.NamedTemporaryFile(suffix=".csv") as file:
        file.write(data)
        file.flush()
        with suppress(UserError):
            for _ in file_input(Path(file.name)).lines():
                pass


CSV = ",".join(FIELDS) + "\n536365,85123A,LAMPE,6,2010-12-01 08:26:00,2.55,17850,Germany\n"
TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {
    "decoder": (decoder, [encode_line(line())]),
    "messages": (messages, [test_fuzz.encoded(test_fuzz.EVENT)]),
    "snapshots": (snapshots, [test_fuzz.ROWS, test_fuzz.FOLDED]),
    "checkpoints": (checkpoints, list(test_fuzz.STORED.values())),
    "models": (models, []),
    "files": (files, [CSV.encode(), CSV.replace(",", ";").encode("utf-16")]),
}


def fuzz(name: str, seconds: int, kept: Path) -> None:
    """Feed one target in this process until the time is over."""
    target, seeds = TARGETS[name]
    kept.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (kept / f"seed-{number}").write_bytes(seed)
    options = [f"-max_total_time={seconds}", "-rss_limit_mb=2048", "-timeout=25", "-max_len=65536"]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={kept.parent}/{name}-", str(kept)], target)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", choices=TARGETS)
    parser.add_argument("file", nargs="?", type=Path, help="an input to repeat")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--kept", type=Path, default=Path("var/fuzz"))
    options = parser.parse_args()
    if options.file is not None:
        TARGETS[options.name][0](options.file.read_bytes())
    elif options.name is not None:
        fuzz(options.name, options.seconds, options.kept / options.name)
    else:
        again = [sys.executable, __file__, f"--seconds={options.seconds}", f"--kept={options.kept}"]
        failed = [name for name in TARGETS if subprocess.run([*again, name], check=False).returncode]
        raise SystemExit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
