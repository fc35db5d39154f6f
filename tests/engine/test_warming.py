"""What a warmed-up engine has compiled, and when one can be warmed up."""

from tests.support.engines import assert_same, make_engine, random_requests


def test_between_two_requests_one_can_warm_up_whatever_rows_still_say() -> None:
    request = random_requests(1)[0]
    ids = {"prompt_ids": [3] * 8, "value_ids": None, "max_new_tokens": 50, "stop": (), "stop_ids": ()}
    long = request.override(**ids, ignore_eos=True, threshold=0.7)
    other = request.override(**ids | {"prompt_ids": [3] * 20, "max_new_tokens": 10})
    with make_engine() as engine:
        whole = engine.generate(long)
        assert not engine.is_warm(other)
        engine.submit(long).cancel()
        handle = engine.submit(long)
        next(iter(handle))
        handle.cancel()
        handle.result()
        engine.warmup([other])
        assert engine.is_warm(other)
        stopped = engine.generate(long.override(stop=[whole.text[4:6]]))
        engine.warmup([other])
        assert stopped.stop_string is not None
        assert_same(engine.generate(long), whole, exact=True)
