"""Taking DAGs apart: nothing starts before what it depends on, and nothing waits for what it does not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mloc_tasks.errors import PlanError
from scheduler.parts import Leaf, Parallel, Part, Series, decompose, topological_order

Dag = dict[str, tuple[str, ...]]


@st.composite
def dags(draw: st.DrawFn, most: int = 12) -> Dag:
    size = draw(st.integers(1, most))
    return {
        f"s{index}": tuple(f"s{above}" for above in draw(st.sets(st.integers(0, index - 1))) if above < index)
        if index
        else ()
        for index in range(size)
    }


@st.composite
def series_parallel_dags(draw: st.DrawFn) -> Dag:
    """DAGs put together from stages by series and parallel composition alone."""
    counter = iter(range(1_000))

    def compose(depth: int) -> tuple[Dag, list[str], list[str]]:
        """The part, its first stages, its last ones."""
        kind = draw(st.sampled_from(["leaf", "series", "parallel"])) if depth else "leaf"
        if kind == "leaf":
            name = f"s{next(counter)}"
            return {name: ()}, [name], [name]
        parts = [compose(depth - 1) for _ in range(draw(st.integers(2, 3)))]
        if kind == "parallel":
            return (
                {name: above for dag, _, _ in parts for name, above in dag.items()},
                [name for _, first, _ in parts for name in first],
                [name for _, _, last in parts for name in last],
            )
        dag, first, last = parts[0]
        for next_dag, next_first, next_last in parts[1:]:
            dag = {**dag, **{n: (*above, *last) if n in next_first else above for n, above in next_dag.items()}}
            last = next_last
        return dag, first, last

    return compose(3)[0]


def run(part: Part, seconds: dict[str, float], start: float, started: dict[str, float]) -> float:
    """When `part` ends if it begins at `start`, everything side by side that may be."""
    match part:
        case Leaf(stage):
            started[stage] = start
            return start + seconds[stage]
        case Series(parts):
            for each in parts:
                start = run(each, seconds, start, started)
            return start
        case Parallel(parts):
            return max(run(each, seconds, start, started) for each in parts)


def critical_path(dag: Dag, seconds: dict[str, float]) -> float:
    ends: dict[str, float] = {}
    for stage in topological_order(dag):
        ends[stage] = max((ends[above] for above in dag[stage]), default=0.0) + seconds[stage]
    return max(ends.values())


@given(dags(), st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_every_stage_starts_after_all_it_depends_on(dag: Dag, random: object) -> None:
    seconds = {stage: float(random.randint(1, 9)) for stage in dag}  # type: ignore[attr-defined]
    started: dict[str, float] = {}
    run(decompose(dag), seconds, 0.0, started)
    assert set(started) == set(dag)
    for stage, above in dag.items():
        for name in above:
            assert started[name] + seconds[name] <= started[stage]


@given(series_parallel_dags(), st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_a_series_parallel_dag_takes_as_long_as_its_critical_path(dag: Dag, random: object) -> None:
    seconds = {stage: float(random.randint(1, 9)) for stage in dag}  # type: ignore[attr-defined]
    assert run(decompose(dag), seconds, 0.0, {}) == critical_path(dag, seconds)


def test_a_diamond_is_a_series_around_a_parallel() -> None:
    part = decompose({"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")})
    assert part == Series((Leaf("a"), Parallel((Leaf("b"), Leaf("c"))), Leaf("d")))


def test_branches_of_different_length_do_not_wait_for_each_other() -> None:
    part = decompose({"a": (), "b": ("a",), "x": (), "y": ("x",), "z": ("b", "y")})
    assert part == Series((Parallel((Series((Leaf("a"), Leaf("b"))), Series((Leaf("x"), Leaf("y"))))), Leaf("z")))


def test_an_n_gets_one_barrier_as_late_as_possible() -> None:
    # a -> c <- b -> d: d may go with its branch, only c waits.
    part = decompose({"a": (), "b": (), "c": ("a", "b"), "d": ("b",)})
    assert part == Series((Parallel((Leaf("a"), Series((Leaf("b"), Leaf("d"))))), Leaf("c")))


def test_complete_bipartite_steps_follow_each_other() -> None:
    part = decompose({"a": (), "b": (), "c": ("a", "b"), "d": ("a", "b")})
    assert part == Series((Parallel((Leaf("a"), Leaf("b"))), Parallel((Leaf("c"), Leaf("d")))))


def test_a_long_chain_is_one_series() -> None:
    dag = {f"s{i}": (f"s{i - 1}",) if i else () for i in range(200)}
    part = decompose(dag)
    assert isinstance(part, Series)
    assert part.parts == tuple(Leaf(f"s{i}") for i in range(200))


def test_a_cycle_is_refused_with_the_stages_in_it() -> None:
    with pytest.raises(PlanError, match="a, b"):
        decompose({"a": ("b",), "b": ("a",)})


def test_an_unknown_stage_is_refused() -> None:
    with pytest.raises(PlanError, match="nowhere"):
        decompose({"a": ("nowhere",)})
