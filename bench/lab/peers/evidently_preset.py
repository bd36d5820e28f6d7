"""Evidently's preset on each window, as a monitor in production runs it: the verdicts of its own tests.

Reference: the last reference window. All settings are Evidently's own, the tests it chooses for this number
of rows and their thresholds too; `drift_share` is 0.5, its default.
"""

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset
from task import COUNTRY, NUMBERS, Table, Task

COLUMNS = (*NUMBERS, COUNTRY)
DEFINITION = DataDefinition(numerical_columns=list(NUMBERS), categorical_columns=[COUNTRY])


def dataset(table: Table) -> Dataset:
    frame = pd.DataFrame({name: table[name] for name in COLUMNS}).astype({COUNTRY: str})
    return Dataset.from_pandas(frame, data_definition=DEFINITION)


def verdicts(reference: Dataset, window: Table) -> dict[str, bool]:
    """Return the verdict on the whole window, and whether any column's test fails."""
    report = Report([DataDriftPreset(columns=list(COLUMNS), drift_share=0.5)], include_tests=True)
    told = report.run(dataset(window), reference).dict()
    failed = {test["metric_config"]["metric_id"]: test["status"] == "FAIL" for test in told["tests"]}
    whole, columns = [], []
    for metric in told["metrics"]:
        kind = metric["config"]["type"].rpartition(":")[2]
        {"DriftedColumnsCount": whole, "ValueDrift": columns}[kind].append(failed[metric["id"]])
    assert (len(whole), len(columns)) == (1, len(COLUMNS)), "the report is not of the form known here"
    return {"dataset": whole[0], "any column": any(columns)}


def main() -> None:
    task = Task.given()
    reference = dataset(task.reference())
    task.judge(lambda window: verdicts(reference, window))
    task.finish()


if __name__ == "__main__":
    main()
