"""NannyML's univariate and PCA reconstruction drift, a chunk a window, fitted on all chunks of the reference.

Thresholds are NannyML's own: three standard deviations of what the reference's chunks show. They take chunks
for independent, which windows of 13 weeks that end a week apart are not; so the univariate calculator is
given chunks of one week each as well. Methods (Jensen-Shannon) and components (65% of the variance) are
defaults too.
"""

import time
from collections.abc import Callable

import pandas as pd
from nannyml import DataReconstructionDriftCalculator, UnivariateDriftCalculator
from task import COUNTRY, NUMBERS, QUIET, Table, Task, rows

WHEN = "ended"
COLUMNS = [*NUMBERS, COUNTRY]
FIRST = pd.Timestamp("2010-11-28")  # a Sunday, on which NannyML's weeks end

Calculator = UnivariateDriftCalculator | DataReconstructionDriftCalculator


def frame(table: Table) -> pd.DataFrame:
    data = pd.DataFrame({name: table[name].astype(float) for name in NUMBERS})
    data[COUNTRY] = pd.Categorical(table[COUNTRY].astype(str))
    data[WHEN] = FIRST + pd.to_timedelta(table["week"] * 7, unit="D")
    return data


def alarms(calculator: Calculator, table: Table) -> dict[int, bool]:
    """Return of each week whether any of the calculator's alerts is raised."""
    found = calculator.calculate(frame(table)).filter(period="analysis").to_df()
    # Columns have three levels for one calculator and two for the other; the last one says what it is.
    ended = pd.to_datetime(found.xs("end_date", axis=1, level=-1).iloc[:, 0]).dt.normalize()
    weeks = ((ended - FIRST).dt.days // 7).tolist()
    raised = found.xs("alert", axis=1, level=-1).astype(bool).any(axis=1)
    return dict(zip(weeks, raised.tolist(), strict=True))


def watch(task: Task, method: str, kind: str, make: Callable[[], Calculator]) -> None:
    quiet = task.table(QUIET, kind)
    reference = rows(quiet, range(1, task.reference_week + 1))
    calculator = make().fit(frame(reference))
    for stream, weeks in task.watched.items():
        table = rows(task.table(stream, kind), weeks)
        begun = time.process_time()
        task.note(method, stream, alarms(calculator, table), cpu_s=time.process_time() - begun)


def main() -> None:
    task = Task.given()
    chunks = {"timestamp_column_name": WHEN, "chunk_period": "W"}
    watch(task, "univariate", "customers", lambda: UnivariateDriftCalculator(COLUMNS, **chunks))
    watch(task, "univariate, weeks", "weeks", lambda: UnivariateDriftCalculator(COLUMNS, **chunks))
    watch(task, "reconstruction", "customers", lambda: DataReconstructionDriftCalculator(COLUMNS, **chunks))
    task.finish()


if __name__ == "__main__":
    main()
