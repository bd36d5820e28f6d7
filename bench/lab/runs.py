"""Seeds on their way through a contestant: quiet streams, and what becomes of them, several at a time."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

from . import others
from .contestants import FAMILIES, Family
from .drifts import DRIFTS, GROWING, STRENGTHS, SUDDEN, Variant, drifted
from .ours import QUIET, WATCHERS
from .results import Course, Store
from .streams import POPULATIONS, Stream


@dataclass(frozen=True)
class Plan:
    """Which streams are watched: those of `quiet` seeds, the first `drifted` of them with drifts too."""

    family: str
    population: str
    quiet: int
    drifted: int
    seeds_from: int
    strengths: tuple[str, ...] = tuple(STRENGTHS)

    @property
    def seeds(self) -> range:
        """The seeds of the quiet streams."""
        return range(self.seeds_from, self.seeds_from + self.quiet)

    def variants(self, seed: int) -> list[Variant]:
        """Return the drifts of a seed: all at once for even seeds, growing for odd ones."""
        if seed - self.seeds_from >= self.drifted:
            return []
        pace = GROWING if seed % 2 else SUDDEN
        return [Variant(drift, strength, pace) for strength in self.strengths for drift in DRIFTS]

    def streams(self, seed: int) -> list[str]:
        """Return the names of a seed's streams."""
        return [QUIET, *map(str, self.variants(seed))]

    def store(self) -> Store:
        """Return where the results are kept."""
        return Store(FAMILIES[self.family], self.population)


def run(plan: Plan, jobs: int, *, say: Callable[[str], None]) -> None:
    """Run what is not kept yet, each seed in one of `jobs` processes."""
    store = plan.store()
    missing = [seed for seed in plan.seeds if store.load(seed, plan.streams(seed)) is None]
    title = f"{plan.population}, {plan.family}"
    say(f"{title}: {plan.quiet - len(missing)} of {plan.quiet} seeds are kept")
    with ProcessPoolExecutor(jobs) as pool:
        done = [pool.submit(run_seed, plan, seed) for seed in missing]
        try:
            for count, future in enumerate(as_completed(done), 1):
                say(f"{title}: {future.result()} ({count} of {len(missing)})")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def run_seed(plan: Plan, seed: int) -> str:
    """Let the family watch a seed's streams and keep what it says; return a word on it."""
    family = FAMILIES[plan.family]
    base = POPULATIONS[plan.population].make(seed)
    variants = _changed(base, plan.variants(seed), seed)
    if family.program:
        methods = others.watch(family, base, variants)
        plan.store().save(seed, methods)
    else:
        watched = WATCHERS[family.name](base, variants)
        courses = {name: Course.of(judged) for name, judged in watched.judged.items()}
        methods = {family.name: courses}
        plan.store().save(seed, methods, calibration_cpu_s=watched.calibration_cpu_s)
    quiet = {method: len(courses[QUIET].alarms) for method, courses in methods.items()}
    return f"seed {seed}, quiet windows with an alarm: {quiet}"


def available(family: Family) -> bool:
    """Whether the family can run here."""
    return family.python.exists() if family.program else family.name in WATCHERS


def _changed(base: Stream, variants: list[Variant], seed: int) -> Iterator[tuple[str, Stream]]:
    for variant in variants:
        yield str(variant), drifted(base, variant, seed)
