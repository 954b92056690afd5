from workbench.methods.memo import MOST, Memo


def test_a_value_is_made_once_for_each_content():
    memo = Memo()
    values = [memo.get("features", key, lambda key=key: [key]) for key in (1, 2, 1, 2, 1)]
    assert values == [[1], [2], [1], [2], [1]]
    assert values[0] is values[2]
    assert memo.made == {"features": 2}


def test_of_large_stages_the_last_few_are_kept():
    memo = Memo()
    most = MOST["features"]
    for key in range(most + 1):
        memo.get("features", key, lambda: 0)
        memo.get("directions", key, lambda: 0)
    for key in (most, 0):
        memo.get("features", key, lambda: 0)
        memo.get("directions", key, lambda: 0)
    assert memo.made == {"features": most + 2, "directions": most + 1}


def test_a_fit_s_seconds_count_what_others_computed_for_it(monkeypatch):
    """A chain of stages costs the same whether all of it, part or nothing was kept."""
    memo, now = Memo(), [0.0]
    monkeypatch.setattr("workbench.methods.memo.time.perf_counter", lambda: now[0])

    def slow(value):
        now[0] += 1.0
        return value

    def fit():
        first = memo.get("a", 0, lambda: slow(1))
        second = memo.get("b", 0, lambda: slow(memo.get("a", 0, lambda: slow(1)) + first))
        return memo.get("b", 0, lambda: slow(0)) + second

    spent = []
    for _ in range(3):
        with memo.timed() as seconds:
            assert fit() == 4
        spent += seconds
    assert spent == [2.0, 2.0, 2.0]
    with memo.timed() as seconds:
        memo.get("b", 0, lambda: slow(0))
    assert seconds == [1.0]
