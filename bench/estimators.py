"""The estimators side by side: `python bench/estimators.py` walks through the real year week by week.

At each window end every estimator is trained on what was known then, predicts each customer's next 90 days,
and is judged when those have passed; beside them stand forecasts that learn nothing. Then each is trained on
the first quarter of years in which nothing changes, and asked again later. `--docs` writes both tables into
docs/models.md. `--size 1000000` measures training on so many rows instead, `--cdnow FILE` fits BG/NBD and
Gamma-Gamma to the CDNOW customers.
"""

import argparse
import os
from pathlib import Path

from lab.still import levels
from lab.streams import has_real_year, real_year
from model_lab import cdnow, page, size
from model_lab.walk import estimator, last_quarter, last_quarter_levelled, read_year, table, walk

from models.estimators import NAMES
from producers.source import DEFAULT_INPUTS
from streams.settings import Settings

STILL_SEEDS = range(5000, 5003)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=list(NAMES), metavar="NAME", help="estimators")
    parser.add_argument("--docs", action="store_true", help="write the tables into docs/models.md")
    parser.add_argument("--size", type=int, metavar="ROWS", help="measure training on so many made-up rows")
    parser.add_argument("--cdnow", type=Path, metavar="FILE", help="a summary of the CDNOW customers, CSV")
    return parser.parse_args()


def measure_size(names: list[str], rows: int) -> None:
    for name in names:
        train_s, score_s, peak_mb = size.measure(name, rows)
        print(
            f"{name:<20} {rows:,} rows: trained in {train_s:.1f} s, scored in {score_s:.1f} s,"
            f" peak {peak_mb:,.0f} MB",
            flush=True,
        )


def compare(names: list[str], *, docs: bool) -> None:
    if not has_real_year():
        raise SystemExit("the real data are not here: ONLINE_RETAIL names them, or put them into data/")
    settings = Settings()
    named = os.environ.get("ONLINE_RETAIL")
    path = Path(named) if named else next(found for found in DEFAULT_INPUTS if found.is_file())
    forecasters = {
        "last quarter again": last_quarter,
        "the same, levelled": last_quarter_levelled,
        **{name: estimator(name, settings.seed) for name in names},
    }
    walked = list(walk(read_year(path, settings), settings, forecasters))
    tables = [page.walk_table(table(walked))]
    print(f"{len(walked)} windows\n{tables[0]}", flush=True)
    tables.append(page.still_table(levels(real_year(), tuple(names), STILL_SEEDS)))
    print(tables[1])
    if docs:
        page.write(tables)


def main() -> None:
    options = parsed()
    if options.size:
        measure_size(options.only, options.size)
    elif options.cdnow:
        print("\n".join(cdnow.check(options.cdnow)))
    else:
        compare(options.only, docs=options.docs)


if __name__ == "__main__":
    main()
