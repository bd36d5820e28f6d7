"""Detectors of other distributions: found by name, refused by name, and unable to stop the stream."""

import json
import re
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
import structlog
from conftest import PROJECT
from line_factory import settings as tiny_settings
from line_factory import shop as tiny_shop
from line_factory import windows_of
from model_frames import customers
from small_shop import clv_drift, set_environment, shop, write_csv

from streams import cloudevents, output
from streams.carry import Carry
from streams.decisions import DecisionLog
from streams.detectors import Cause, DetectionContext, Verdict, judged, make_detector, make_detectors
from streams.detectors.plugins import ANSWER_BYTES_MAX, GROUP
from streams.errors import ExitCode, UserError
from streams.evaluation import Evaluator
from streams.grid import from_iso
from streams.history import History
from streams.settings import Settings

BUILT_IN = ["baseline", "calibrated", "evidently_any", "evidently_dataset"]
PAGE = PROJECT / "docs" / "detectors.md"
DETECTOR = """
from streams.detectors import Verdict

class Mine:
    name = {name!r}
    def judge(self, context, carry=None):
        {body}

def make(settings):
    return Mine()
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution with one module and one entry point, as pip lays it out."""
    places = []

    def installed(module: str, code: str, *, name: str = "mine", value: str | None = None) -> None:
        place = tmp_path / f"site-{len(places)}"
        info = place / f"{module}-1.0.dist-info"
        info.mkdir(parents=True)
        (place / f"{module}.py").write_text(code)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {value or module + ':make'}\n")
        monkeypatch.syspath_prepend(place)
        places.append(place)

    return installed


def code_of(body: str, name: str = "mine") -> str:
    return DETECTOR.format(name=name, body=body)


def context(**changes) -> DetectionContext:
    given = {
        "window_end": from_iso("2011-06-06T00:00:00Z"),
        "current": customers(1, 50),
        "reference": customers(2, 50),
        "reference_window_end": from_iso("2011-03-07T00:00:00Z"),
        "partial": False,
    }
    return DetectionContext(**{**given, **changes})


# -- the page --------------------------------------------------------------------


def blocks(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return found


def test_the_example_of_the_page_runs_in_a_backfill(install, tmp_path, monkeypatch):
    """Its verdicts are those that the published snapshots lead to."""
    name, module, factory = re.search(r'^(\w+) = "(\w+):(\w+)"', blocks("toml"), re.MULTILINE).groups()
    assert f'[project.entry-points."{GROUP}"]' in blocks("toml")
    install(module, blocks("python"), name=name, value=f"{module}:{factory}")
    set_environment(monkeypatch, detectors=("baseline", name), acting_detector=name)
    source = shop("churn:60%@2011-03-28", text="customers=400,days=150,seed=3")
    given, out = write_csv(tmp_path / "shop.csv", source), tmp_path / "out"

    assert clv_drift("backfill", given, "--out", out) == 0

    rows = pd.read_parquet(out / output.SNAPSHOTS)
    share = 100 * (rows["Recency"] >= 7).groupby(rows["window_end"].map(lambda at: at.isoformat())).mean()
    states, change, served, judged_windows = [], None, None, 0
    for line in (out / output.EVALUATIONS).read_bytes().splitlines():
        data = json.loads(line)["data"]
        states.append(data["state"])
        if "baseline" not in data["verdicts"]:
            continue
        verdict = data["verdicts"][name]
        if data["partial"]:
            assert verdict["drift"] is None
            continue
        if data["model_version"] != served:
            served, change = data["model_version"], None  # after a promotion nothing is carried
        at, before = (share[data[key].replace("Z", "+00:00")] for key in ("window_end", "reference_end"))
        change = at - before if change is None else 0.7 * change + 0.3 * (at - before)
        assert verdict["statistic"] == pytest.approx(abs(change))
        assert verdict["drift"] is bool(abs(change) > 5)
        assert data["carry"]["detectors"][name] == {"change": pytest.approx(change)}
        judged_windows += 1
    assert judged_windows > 5
    assert "confirmed" in states


def test_the_page_lists_every_detector_there_is():
    text = PAGE.read_text()
    table = text[text.index("| name |") :].partition("\n\n")[0]
    listed = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert sorted(set(listed) - {"r2_drop", "performance"}) == BUILT_IN
    for name in BUILT_IN:
        assert make_detector(name, Settings()).name == name


# -- refused at the start ----------------------------------------------------------


def refused(name: str = "mine") -> UserError:
    with pytest.raises(UserError) as caught:
        make_detector(name, Settings())
    assert caught.value.code is ExitCode.USAGE
    assert "\n" not in caught.value.message
    return caught.value


def test_an_unknown_name_is_refused_with_all_that_are_known(install):
    install("shop_detectors", code_of("return Verdict(drift=False), None"))
    error = refused("oracle")
    assert error.message == "there is no detector 'oracle'"
    assert error.hint == f"known detectors: {', '.join(sorted([*BUILT_IN, 'mine']))}"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import not_there", "cannot be imported: ModuleNotFoundError: No module named 'not_there'"),
        ("x = (", "cannot be imported: SyntaxError"),
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("", "cannot be imported: AttributeError: module 'broken_"),
        ("def make(settings): settings.absent", "cannot be made: AttributeError:"),
        ("def make(): pass", "cannot be made: TypeError: make() takes 0 positional arguments"),
        ("make = 5", "cannot be made: TypeError: 'int' object is not callable"),
        ("def make(settings): pass", "is no detector: broken_7:make returned NoneType"),
        (code_of("pass", name="yours"), "calls itself 'yours', not 'mine'"),
    ],
)
def test_a_distribution_that_gives_no_detector_is_refused_by_name(install, request, code, said):
    module = f"broken_{request.node.callspec.indices['code']}"  # each is imported once
    install(module, code)
    error = refused()
    assert error.message.startswith(f"the detector 'mine' ({module}:make of {module} 1.0) {said}")
    assert "leave 'mine' out of `detectors`" in error.hint


def test_what_a_factory_tells_the_user_is_passed_on(install):
    install(
        "strict",
        "from streams.errors import UserError\ndef make(settings): raise UserError('27 weeks are needed')",
    )
    with pytest.raises(UserError, match="27 weeks are needed"):
        make_detector("mine", Settings())


def test_a_name_that_two_distributions_claim_is_refused_with_both(install):
    for module in ("one", "two"):
        install(module, code_of("return Verdict(drift=False), None"))
    assert refused().message == (
        "there is more than one detector 'mine': one:make of one 1.0 and two:make of two 1.0"
    )
    install("usurper", code_of("return Verdict(drift=False), None", "baseline"), name="baseline")
    message = refused("baseline").message
    assert "streams.detectors.builtin:baseline of clv-drift" in message
    assert "usurper:make of usurper 1.0" in message


def test_the_name_of_a_verdict_on_models_is_refused(install):
    install("original", code_of("return Verdict(drift=False), None", "r2_drop"), name="r2_drop")
    assert "verdicts on models" in refused("r2_drop").message


def test_a_command_says_it_without_a_traceback(install, tmp_path, monkeypatch, capsys):
    install("unfinished", "import not_there")
    set_environment(monkeypatch, detectors=("baseline", "mine"))
    assert clv_drift("backfill", "--synthetic", "customers=50,days=20", "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "the detector 'mine' (unfinished:make of unfinished 1.0) cannot be imported" in said
    assert "Traceback" not in said


# -- what it answers -----------------------------------------------------------------


class Answering:
    name = "mine"

    def __init__(self, answer):
        self.answer = answer

    def judge(self, context, carry=None):  # noqa: ARG002
        return self.answer


QUIET = Verdict(drift=False)
NUMBERED = Cause(feature=5, scale_weeks=1, segment="", effect=0.5, unit="days")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "it answered NoneType, not a Verdict and what to carry"),
        (QUIET, "it answered Verdict, not a Verdict and what to carry"),
        ((True, None), "it answered tuple, not a Verdict and what to carry"),
        ((QUIET, None, None), "it answered tuple, not a Verdict and what to carry"),
        (
            (Verdict(drift="no"), None),
            "msgspec.ValidationError: Expected `bool | null`, got `str` - at `$.drift`",
        ),
        (
            (Verdict(drift=True, causes=(NUMBERED,)), None),
            "msgspec.ValidationError: Expected `str`, got `int`",
        ),
        ((Verdict(drift=False, onset=10**15), None), "ValueError: year 31690708 is out of range"),
        ((Verdict(drift=False, calibration={"a": object()}), None), "TypeError: a verdict holds a object"),
        ((Verdict(drift=None, reason="\ud800"), None), "UnicodeEncodeError:"),
        ((QUIET, [1]), "it carries a list, not an object of JSON"),
        ((QUIET, {"a": object()}), "what it carries is no JSON: Encoding objects of type object"),
        (
            (QUIET, {"a": np.float64(1.5)}),
            "what it carries is no JSON: Encoding objects of type numpy.float64",
        ),
        ((QUIET, {"a": float("nan")}), "what it carries comes back from JSON as something else"),
        ((QUIET, {"a": (1, 2)}), "what it carries comes back from JSON as something else"),
        ((QUIET, {1: 2}), "what it carries comes back from JSON as something else"),
        ((QUIET, {"a": "x" * ANSWER_BYTES_MAX}), "its verdict has"),
        ((Verdict(drift=None, reason="x" * ANSWER_BYTES_MAX), None), "its verdict has"),
    ],
)
def test_what_is_no_answer_cannot_tell_and_leaves_the_carry(answer, reason):
    before = {"weeks": [1, 2]}
    verdict, carry = judged(Answering(answer), context(), before)
    assert verdict.drift is None
    assert verdict.reason.startswith(f"mine failed: {reason}")
    assert len(verdict.reason) < 400
    assert carry == before
    cloudevents.encode({"data": verdict.to_dict()})


def test_an_exception_is_told_in_one_line_with_the_traceback_in_the_log():
    class Failing:
        name = "mine"

        def judge(self, context, carry=None):  # noqa: ARG002
            carry["weeks"].append(3)
            raise KeyError("no\n  such week" + "." * 1000)

    before = {"weeks": [1, 2]}
    with structlog.testing.capture_logs() as logged:
        verdict, carry = judged(Failing(), context(), before)
    assert verdict.reason.startswith("mine failed: KeyError: 'no\\n such week...")
    assert len(verdict.reason) < 400
    assert carry == before == {"weeks": [1, 2]}
    (entry,) = logged
    assert (entry["log_level"], entry["detector"]) == ("error", "mine")
    assert entry["window_end"] == "2011-06-06T00:00:00Z"
    assert entry["exception"].startswith("Traceback")
    assert 'raise KeyError("no' in entry["exception"]


def test_an_exception_that_cannot_tell_itself_is_told_all_the_same():
    class MuteError(Exception):
        def __str__(self):
            raise RuntimeError

    class Failing:
        name = "mine"

        def __init__(self, exc):
            self.exc = exc

        def judge(self, context, carry=None):  # noqa: ARG002
            raise self.exc

    for exc, words in ((MuteError(), "MuteError"), (ValueError("\ud800"), "ValueError: ?")):
        verdict, _ = judged(Failing(exc), context(), None)
        assert words in verdict.reason
        cloudevents.encode({"data": verdict.to_dict()})


def test_numpy_figures_of_a_verdict_become_plain_ones():
    drifting = Verdict(
        drift=np.bool_(True),
        statistic=np.float64(0.5),
        threshold=1,
        scores={"Recency": np.float32(0.25)},
        drifted_columns=np.int64(1),
        onset=np.int64(1_300_000_000),
    )
    verdict, carry = judged(Answering((drifting, {"a": [1, 0.5, None, True, {}]})), context(), None)
    assert verdict.drift is True
    assert json.loads(msgspec.json.encode(verdict.to_dict()))["scores"] == {"Recency": 0.25}
    assert carry == {"a": [1, 0.5, None, True, {}]}


def test_frames_that_a_detector_changes_are_its_own():
    class Careless:
        name = "mine"

        def judge(self, context, carry=None):  # noqa: ARG002
            for frame in (context.current, context.reference):
                frame["Recency"] = 0.0
                frame.loc[:, "Monetary"] = -1.0
                del frame["Country"]
            return QUIET, None

    given = context()
    before = given.current.copy(), given.reference.copy()
    assert judged(Careless(), given, None) == (QUIET, None)
    pd.testing.assert_frame_equal(given.current, before[0])
    pd.testing.assert_frame_equal(given.reference, before[1])


# -- in the stream -----------------------------------------------------------------------


def evaluations(conf: Settings) -> list[dict]:
    history, carry, found = History(), Carry(), []
    evaluator = Evaluator(conf, make_detectors(conf), load=lambda _: pytest.fail("nothing serves"))
    for snapshot in windows_of(tiny_shop(6, days=75, customers=120, orders_a_day=18), conf):
        history.add(snapshot)
        carry = msgspec.structs.replace(carry, pending=())
        evaluated = evaluator.evaluate(history, carry, DecisionLog())
        carry = evaluated.carry
        found.append(json.loads(cloudevents.encode(evaluated.evaluation))["data"])
    return found


@pytest.mark.parametrize("module", ["wild_1", "wild_2"])
def test_a_detector_that_fails_in_some_windows_changes_nothing_else(install, module):
    """It counts its windows and fails in every third; what it carried is still there in the next."""
    body = (
        "n = (carry or {'n': 0})['n'] + 1\n"
        "        if context.window_end // 604_800 % 3 == 0: raise RuntimeError('a bad week')\n"
        "        return Verdict(drift=False, statistic=float(n)), {'n': n}"
    )
    install(module, code_of(body))
    alone = evaluations(tiny_settings(detectors=("baseline",)))
    both = evaluations(tiny_settings(detectors=("mine", "baseline")))
    counted = 0
    for bare, data in zip(alone, both, strict=True):
        verdict = data["verdicts"].pop("mine", None)
        data["carry"]["detectors"].pop("mine", None)
        assert data["verdicts"] == bare["verdicts"]
        assert (data["state"], data["carry"]) == (bare["state"], bare["carry"])
        if verdict is None:
            continue
        if from_iso(data["window_end"]) // 604_800 % 3 == 0:
            assert (verdict["drift"], verdict["reason"]) == (None, "mine failed: RuntimeError: a bad week")
        else:
            counted += 1
            assert (verdict["drift"], verdict["statistic"]) == (False, counted)
    assert counted > 2


def test_an_acting_detector_that_always_fails_neither_confirms_nor_stops(install):
    install("wild_3", code_of("raise MemoryError"))
    found = evaluations(tiny_settings(detectors=("mine",), acting_detector="mine"))
    assert {data["state"] for data in found} == {"warming", "reference", "quiet"}
    assert found[-2]["verdicts"]["mine"]["reason"] == "mine failed: MemoryError"


def test_the_module_of_a_plugin_is_imported_from_its_own_place(install):
    install("shop_own", code_of("return Verdict(drift=False), None"))
    made = make_detector("mine", Settings())
    assert Path(__import__("shop_own").__file__).parent.name == "site-0"
    assert made.judge(context()) == (QUIET, None)
