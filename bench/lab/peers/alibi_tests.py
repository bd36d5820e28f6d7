"""alibi-detect on each window against the last reference window: tests a feature, and a classifier.

`TabularDrift` has its defaults (K-S and chi-square, Bonferroni, p < 0.05). `ClassifierDrift` asks whether a
random forest can tell the window's customers from the reference's, out of bag as its documentation advises
for forests; the forest is scikit-learn's but for leaves of ten customers, p < 0.05 is the default.
"""

from alibi_detect.cd import ClassifierDrift, TabularDrift
from sklearn.ensemble import RandomForestClassifier
from task import NUMBERS, Table, Task, matrix


def main() -> None:
    task = Task.given()
    reference = matrix(task.reference())
    tests = TabularDrift(reference, categories_per_feature={len(NUMBERS): None})
    forest = RandomForestClassifier(oob_score=True, min_samples_leaf=10, random_state=1)
    classifier = ClassifierDrift(
        reference, forest, backend="sklearn", preds_type="probs", use_oob=True, seed=1
    )

    def by_tests(window: Table) -> dict[str, bool]:
        return {"tests": tests.predict(matrix(window))["data"]["is_drift"]}

    def by_classifier(window: Table) -> dict[str, bool]:
        return {"classifier": classifier.predict(matrix(window))["data"]["is_drift"]}

    task.judge(by_tests, by_classifier)
    task.finish()


if __name__ == "__main__":
    main()
